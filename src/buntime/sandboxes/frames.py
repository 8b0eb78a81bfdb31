"""Frames from a guest: one byte of kind, the payload's length in four (big-endian), the payload.

Read in batches of what is there: a guest that cuts its output into crumbs costs little more than another.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import NoReturn

from aiohttp import StreamReader

from buntime.sandboxes.failures import Impostor

HEADER = struct.Struct(">cI")
TURN = 1000  # frames, after which others get theirs

type Frame = tuple[bytes, bytes]  # kind, payload


async def batches(content: StreamReader, largest: int) -> AsyncIterator[list[Frame]]:
    """Lists of frames as they come, none empty. Ends with the stream, between two frames.

    Raises Impostor for a payload of more than `largest` bytes, or an end in the middle of one.
    """
    rest = bytearray()
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
        if frames:
            yield frames
    if rest:
        _refuse("half a frame")


def _refuse(what: str) -> NoReturn:
    raise Impostor(f"it sent {what}")
