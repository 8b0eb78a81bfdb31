"""Frames from a guest: one byte of kind, the payload's length in four bytes (big-endian), the payload.

They are read in batches of what has arrived: a guest that cuts its output into crumbs costs little more than another.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from itertools import batched
from typing import NoReturn, Protocol

from buntime.daemon.room import hold
from buntime.inside import Stream
from buntime.sandboxes.guest.failures import Impostor

HEADER = struct.Struct(">cI")
TURN = 1000  # frames after which other tasks get a turn
STREAMS: Mapping[bytes, Stream] = {b"o": "stdout", b"e": "stderr"}
ENOUGH = 8 << 10  # bytes of output that are worth passing on at once …
GATHER_SECONDS = 0.004  # … less waits this long for more, so a program that writes byte by byte costs little


class Parts(Protocol):
    """A body as it arrives."""

    async def read(self) -> bytes:
        """Some of it; empty at its end."""
        ...


type Frame = tuple[bytes, bytes]  # kind, payload
type Piece = tuple[bytes, bytes | memoryview]  # kind, some of the payload


async def batches(content: Parts, largest: int) -> AsyncGenerator[Sequence[Frame]]:
    """Batches of frames as they arrive, never empty. Ends when the stream ends between two frames.

    Raises Impostor for a payload of more than `largest` bytes and for a stream that ends inside a frame. Raises
    Unavailable when there is no room for the frame that is arriving.
    """
    frames = _Frames(largest)
    while part := await content.read():
        for some in batched(frames.taken_from(part), TURN, strict=False):
            yield some
            if len(some) == TURN:
                await asyncio.sleep(0)
    frames.end()


class _Frames:
    """The bytes of a frame that is not whole yet."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._rest = bytearray()
        self._counted = 0

    def taken_from(self, part: bytes) -> Iterator[Frame]:
        rest, taken = self._rest, 0
        rest += part
        while len(rest) - taken >= HEADER.size:
            kind, length = HEADER.unpack_from(rest, taken)
            if length > self._largest:
                _refuse(f"a frame of {length} bytes")
            end = taken + HEADER.size + length
            if end > len(rest):
                break
            yield kind, bytes(rest[taken + HEADER.size : end])
            taken = end
        del rest[:taken]
        self._count()

    def _count(self) -> None:
        """A guest may leave a frame unfinished for as long as it likes, so the memory counts."""
        if len(self._rest) > self._counted:
            hold(len(self._rest) - self._counted)
            self._counted = len(self._rest)

    def end(self) -> None:
        if self._rest:
            _refuse("part of a frame")


async def pieces(content: Parts, largest: int, whole: bytes) -> AsyncIterator[Sequence[Piece]]:
    """Like `batches`, but with payloads in pieces as they arrive, so that large output is copied little. The payload of
    the kind `whole`, of which there is one, comes in one piece."""
    frames = _Pieces(largest, whole)
    while part := await content.read():
        for some in batched(frames.taken_from(part), TURN, strict=False):
            yield some
            if len(some) == TURN:
                await asyncio.sleep(0)
    frames.end()


class _Pieces:
    """How far the frame that is arriving has come."""

    def __init__(self, largest: int, whole: bytes) -> None:
        self._largest = largest
        self._whole = whole
        self._kind = b""
        self._missing = 0  # bytes of its payload
        self._header = b""  # the beginning of a header
        self._held = bytearray()  # the payload of `whole` so far

    def taken_from(self, part: bytes) -> Iterator[Piece]:
        part = self._header + part if self._header else part
        view, at = memoryview(part), 0
        while self._missing or len(part) - at >= HEADER.size:
            if not self._missing:
                self._begin(part, at)
                at += HEADER.size
            piece = view[at : at + self._missing]
            at += len(piece)
            self._missing -= len(piece)
            if self._kind != self._whole:
                yield self._kind, piece
            elif (payload := self._keep(piece)) is not None:
                yield self._kind, payload
            if at == len(part):
                break
        self._header = part[at:]

    def _begin(self, part: bytes, at: int) -> None:
        self._kind, self._missing = HEADER.unpack_from(part, at)
        if self._missing > self._largest or (self._missing == 0 and self._kind != self._whole):
            _refuse(f"a frame of {self._missing} bytes")

    def _keep(self, piece: memoryview) -> bytes | None:
        """The payload, when it is whole."""
        hold(len(piece))
        self._held += piece
        if self._missing:
            return None
        payload = bytes(self._held)
        self._held.clear()
        return payload

    def end(self) -> None:
        if self._missing or self._header:
            _refuse("part of a frame")


def _refuse(what: str) -> NoReturn:
    raise Impostor(f"it sent {what}")
