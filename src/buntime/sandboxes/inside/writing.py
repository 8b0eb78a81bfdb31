"""Writing several files in one call: all or none."""

import struct
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from buntime.inside import FileToWrite
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Count, Guest
from buntime.sandboxes.guest.paths import named

AT_ONCE = 32 << 10  # bytes of contents that are copied into one request


class _Sizes(msgspec.Struct):
    sizes: list[Count]


async def write_batch(guest: Guest, files: Sequence[FileToWrite]) -> Sequence[int]:
    """See `inside.Files.write_batch`."""
    size = sum(len(file.content) for file in files)
    body = b"".join(_parts(files)) if size <= AT_ONCE else _sent(files)
    sizes = (await guest.call("POST", "/files/write", {}, _Sizes, body)).sizes
    if len(sizes) != len(files):
        raise SandboxGone("the guest wrote a different number of files")
    return sizes


def _head(files: Sequence[FileToWrite]) -> bytes:
    """What precedes the contents: a length of four bytes, then the files as JSON."""
    told = [{**named(f.path), "size": len(f.content), "mode": f.mode, "append": f.append} for f in files]
    text = msgspec.json.encode({"files": told})
    return struct.pack(">I", len(text)) + text


def _parts(files: Sequence[FileToWrite]) -> Iterator[bytes]:
    yield _head(files)
    for file in files:
        yield file.content


async def _sent(files: Sequence[FileToWrite]) -> AsyncIterator[bytes]:
    for part in _parts(files):
        yield part
