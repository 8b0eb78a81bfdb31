"""Runs in a session: liar.py PREFIX LIE [CONTEXT] – takes the guest's place and lies. Needs taking.py beside it.

It lies about paths that begin with PREFIX, and says so. It answers others so that the server goes on: it knows this
context, for example. LIE is one of
LIES, or "errno:" and a name: then it fails with that errno as a guest does, even for `/health`, or "json:" and the text
that it answers.
"""

import json
import struct
import sys
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.inside.taking import Stream, take_the_guests_place
else:
    from taking import Stream, take_the_guests_place

DEEP = b"[" * 100_000
USUAL = {"/health": b'{"protocol": 2}', "/uploads": b'{"upload": "x"}', "/spares": b'{"pid": 4000000}'}
ENDLESS = "/processes/ends"  # says nothing


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


def endless(part: bytes, first: bytes = b"", piece: int = 32_768) -> Callable[[Stream], None]:
    def lie(stream: Stream) -> None:
        stream.send(first, piece)
        for each in repeat(part):
            stream.send(each, piece)

    return lie


def ends_after(content: bytes) -> Callable[[Stream], None]:
    def lie(stream: Stream) -> None:
        stream.send(content)
        stream.end()

    return lie


LIES: dict[str, Callable[[Stream], None]] = {
    "noise": lambda stream: stream.link.put(b"\x00\xff" * 512),
    "garbage": lambda stream: stream.whole(b"\x00\xff" * 512),
    "garbage frames": ends_after(b"\x00\xff" * 512),
    "deep": ends_after(b'{"files":0,"a":' + DEEP + b"]" * 100_000 + b"}"),
    "deep frames": ends_after(b"".join(frame(kind, DEEP) for kind in (b"c", b"v", b"p", b"x"))),
    "half a frame": endless(b"[" * 65_536, struct.pack(">cI", b"c", 8 << 20)),
    "crumbs": endless((frame(b"o", b"x") + frame(b"e", b"y")) * 5000),
    "shows": endless(frame(b"d", b"{}") * 5000),
    "losses": endless(frame(b"l", b"") * 10_000),
    "entries": endless(frame(b"o", b"\0" * 6 + b"x") * 5000),
    "flood": endless(b"x" * 10_000, piece=1),
}
WATCHES = frame(b"r", b"")  # a watch begins


def main(where: str, how: str, context: str = "") -> None:
    kind, _, text = how.partition(":")
    contexts = [{"id": context, "createdAt": 1, "workingDir": "/workspace", "runs": 0, "lost": None}] if context else []
    usual = USUAL | {"/contexts": json.dumps({"contexts": contexts}).encode()}

    def answer(stream: Stream, target: str) -> None:
        path = target.split(" ")[1].split("?")[0]
        if not path.startswith(where) or (path == "/health" and kind != "errno"):
            if path != ENDLESS:
                stream.whole(usual.get(path, b"{}"))
            return
        print("lies", flush=True)
        if kind == "errno":
            stream.whole(b'{"errno": "%s"}' % text.encode(), 409)
        elif kind == "json":
            stream.whole(text.encode())
        else:
            if path == "/files/watch" and how in ("deep frames", "half a frame", "losses"):
                stream.send(WATCHES)
            LIES[how](stream)

    take_the_guests_place(answer)


main(*sys.argv[1:])
