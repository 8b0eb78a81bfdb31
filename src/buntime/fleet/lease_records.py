"""The bytes of the lease file. It imports next to nothing, because the watchdog's spare must stay small."""

import struct
import zlib

RECORD = struct.Struct("=16s4Q")
SIZE = RECORD.size + 4  # with a checksum
SERVER, WATCHDOG = 0, 64  # where their records begin
SPARE = 128  # the byte that a spare locks: the kernel tells who it is
LOCK = struct.Struct("@hhqqi")  # flock of fcntl(2)
NS = 1_000_000_000

type Numbers = tuple[int, int, int, int]


def packed(boot: bytes, *numbers: int) -> bytes:
    record = RECORD.pack(boot, *numbers)
    return record + zlib.crc32(record).to_bytes(4)


def unpacked(found: bytes, boot: bytes) -> Numbers | None:
    """None for a record of another boot. Raises ValueError for one that is damaged, or is being written."""
    record = found[: RECORD.size]
    if len(found) != SIZE or zlib.crc32(record) != int.from_bytes(found[RECORD.size :]):
        raise ValueError
    of, first, second, third, fourth = RECORD.unpack(record)
    return (first, second, third, fourth) if of == boot else None
