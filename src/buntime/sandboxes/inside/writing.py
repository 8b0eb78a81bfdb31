"""Writing several files in one call: all or none."""

import struct
from collections.abc import AsyncIterator, Sequence

import msgspec

from buntime.inside import FileToWrite
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Count, Guest
from buntime.sandboxes.guest.paths import named

CHUNK = 1 << 20  # bytes that are sent at once


class _Sizes(msgspec.Struct):
    sizes: list[Count]


async def write_batch(guest: Guest, files: Sequence[FileToWrite]) -> Sequence[int]:
    """See `inside.Files.write_batch`."""
    head = _head(files)
    length = len(head) + sum(len(file.content) for file in files)
    sizes = (await guest.call("POST", "/files/write", {}, _Sizes, _body(head, files), length)).sizes
    if len(sizes) != len(files):
        raise SandboxGone("the guest wrote a different number of files")
    return sizes


def _head(files: Sequence[FileToWrite]) -> bytes:
    """What precedes the contents: a length of four bytes, then the files as JSON."""
    told = [{**named(f.path), "size": len(f.content), "mode": f.mode, "append": f.append} for f in files]
    text = msgspec.json.encode({"files": told})
    return struct.pack(">I", len(text)) + text


async def _body(head: bytes, files: Sequence[FileToWrite]) -> AsyncIterator[bytes]:
    yield head
    for file in files:
        for start in range(0, len(file.content), CHUNK):
            yield file.content[start : start + CHUNK]
