"""Compresses volumes for the archive with zstandard. Memory does not grow with the volume."""

from collections.abc import Iterable, Iterator

import zstandard

from buntime.lifecycle.sealing import Damaged

LEVEL = 1  # a third faster than level 3, and the output is a tenth larger
LARGEST_WINDOW = 8 << 20  # bytes that unpacking may need to look back at
FEED = 1 << 10  # bytes unpacked at a time; 1 KiB of packed zeros can grow to 32 MiB


def compress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Packs `chunks`. Raises what `chunks` raises."""
    packer = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def decompress(chunks: Iterable[bytes], largest: int) -> Iterator[bytes]:
    """Unpacks `chunks`. Raises what `chunks` raises, and Damaged when they are not what `compress` returned, are cut,
    or unpack to more than `largest` bytes. Never returns more than `largest` bytes."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
    size = 0
    for chunk in chunks:
        for start in range(0, len(chunk), FEED):
            content = _unpack(unpacker, chunk[start : start + FEED])
            size += len(content)
            if size > largest:
                raise Damaged(f"the packed content is larger than {largest} bytes")
            if content:
                yield content
    if not unpacker.eof:
        raise Damaged("the packed content is cut")


def _unpack(unpacker: "zstandard.ZstdDecompressionObj", packed: bytes) -> bytes:
    if unpacker.eof:
        raise Damaged("something follows the packed content")
    try:
        content = unpacker.decompress(packed)
    except zstandard.ZstdError as wrong:
        raise Damaged(f"the content was not packed here: {wrong}") from wrong
    if unpacker.unused_data:
        raise Damaged("something follows the packed content")
    return content
