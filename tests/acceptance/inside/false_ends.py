"""Runs in a session: false_ends.py ID LIE – takes the guest's place, and tells of ends of processes that are none.

Needs taking.py beside it. ID: of a process of another session. LIE: `others` tells of that one and of made-up ones
without end, `garbage` of nothing that can be read.
"""

import json
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.inside.taking import Stream, take_the_guests_place
else:
    from taking import Stream, take_the_guests_place


def lies(other: str, how: str) -> bytes:
    if how == "garbage":
        payload = b"[" * 1000
    else:
        ids = [other, *(f"proc_{number:018}" for number in range(400))]
        payload = json.dumps([{"id": name, "exitCode": 0, "reason": None} for name in ids]).encode()
    return struct.pack(">cI", b"d", len(payload)) + payload


def answer(stream: Stream, target: str) -> None:
    if not target.startswith("POST /processes/ends"):
        stream.whole(b"{}")
        return
    print("asked", flush=True)
    for _ in range(4):
        stream.send(lies(*sys.argv[1:3]))


take_the_guests_place(answer)
