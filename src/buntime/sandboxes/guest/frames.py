"""Frames from a guest: one byte of kind, the payload's length in four (big-endian), the payload.

Read in batches of what is there: a guest that cuts its output into crumbs costs little more than another.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import NoReturn

from aiohttp import StreamReader

from buntime.daemon.room import hold
from buntime.inside import Stream
from buntime.sandboxes.guest.failures import Impostor

HEADER = struct.Struct(">cI")
TURN = 1000  # frames, after which others get theirs
READ = 128 << 10  # bytes at once, of which there may be much: more would be memory that is new each time

STREAMS: Mapping[bytes, Stream] = {b"o": "stdout", b"e": "stderr"}
ENOUGH = 8 << 10  # bytes of output that are worth passing on at once …
GATHER_SECONDS = 0.004  # … else what follows is gathered for so long: a program that writes byte by byte costs little

type Frame = tuple[bytes, bytes]  # kind, payload
type Piece = tuple[bytes, bytes | memoryview]  # kind, some of the payload


async def batches(content: StreamReader, largest: int) -> AsyncGenerator[list[Frame]]:
    """Lists of frames as they come, none empty. Ends with the stream, between two frames.

    Raises Impostor for a payload of more than `largest` bytes, or an end in the middle of one; Unavailable where there
    is no room for the one that is coming.
    """
    rest, counted = bytearray(), 0
    while part := await content.readany():
        rest += part
        frames, taken = [], 0
        while len(rest) - taken >= HEADER.size:
            kind, length = HEADER.unpack_from(rest, taken)
            if length > largest:
                _refuse(f"a frame of {length} bytes")
            end = taken + HEADER.size + length
            if end > len(rest):
                break
            frames.append((kind, bytes(rest[taken + HEADER.size : end])))
            taken = end
            if len(frames) >= TURN:
                yield frames
                frames = []
                await asyncio.sleep(0)
        del rest[:taken]
        if len(rest) > counted:  # and kept, for as long as the guest likes
            hold(len(rest) - counted)
            counted = len(rest)
        if frames:
            yield frames
    if rest:
        _refuse("half a frame")


async def pieces(content: StreamReader, largest: int, whole: bytes) -> AsyncIterator[list[Piece]]:
    """The same, with payloads in pieces as they come, so that much is copied little; but for the kind `whole`, of which
    there is one."""
    kind, missing, rest = b"", 0, b""  # `rest`: the beginning of a header
    held = bytearray()  # of a payload that is wanted whole
    while part := await content.read(READ):
        part = rest + part if rest else part
        view, at, found = memoryview(part), 0, list[Piece]()
        while missing or len(part) - at >= HEADER.size:
            if not missing:
                kind, missing = HEADER.unpack_from(part, at)
                if missing > largest or (missing == 0 and kind != whole):
                    _refuse(f"a frame of {missing} bytes")
                at += HEADER.size
            piece = view[at : at + missing]
            at += len(piece)
            missing -= len(piece)
            if kind != whole:
                found.append((kind, piece))
            else:
                hold(len(piece))
                held += piece
                if not missing:
                    found.append((kind, bytes(held)))
                    held.clear()
            if len(found) >= TURN:
                yield found
                found = []
                await asyncio.sleep(0)
            if at == len(part):
                break
        rest = part[at:]
        if found:
            yield found
    if missing or rest:
        _refuse("half a frame")


def _refuse(what: str) -> NoReturn:
    raise Impostor(f"it sent {what}")
