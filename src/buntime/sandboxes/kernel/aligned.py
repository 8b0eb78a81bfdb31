"""A copy of a program whose text the kernel can map in huge pages.

An ELF file says where in memory each of its segments belongs. A huge page can hold a part of a segment only if that has
the same distance to a multiple of 2 MB in the file and in memory. Linkers make it the same to a multiple of 4 KB. So
the copy has padding before the text. Each byte that is loaded is the same, and at the same address.
"""

import shutil
import struct
from dataclasses import dataclass
from typing import BinaryIO

HUGE = PIECE = 2 << 20  # bytes
PAGE = 4 << 10
# elf(5), for 64 bits and the least significant byte first
_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_LOAD, _EXECUTABLE = 1, 1


@dataclass(frozen=True, slots=True)
class _Plan:
    cut: int  # where in the file the page with the first byte of text begins
    shift: int  # bytes
    tables: dict[int, bytes]  # place in the copy → what is there


def copy_aligned(source: BinaryIO, target: BinaryIO) -> None:
    """Copies the file as it is if it needs no padding, or is not a program of the kind that is known here."""
    try:
        plan = _plan(source)
    except (OSError, ValueError, OverflowError, struct.error):  # numbers that no file has
        plan = None
    source.seek(0)
    if plan is not None:
        # the page may have the end of the segment before it, too
        target.write(source.read(plan.cut + PAGE))
        target.seek(plan.cut + plan.shift)
        source.seek(plan.cut)
    shutil.copyfileobj(source, target, PIECE)
    if plan is not None:
        for place, table in plan.tables.items():
            target.seek(place)
            target.write(table)


def _plan(file: BinaryIO) -> _Plan | None:
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    header = list(_HEADER.unpack(head))
    segments_at, sections_at, segment_size, segment_count, section_size, section_count = (
        header[n] for n in (5, 6, 9, 10, 11, 12)
    )
    segments = _table(file, segments_at, _SEGMENT, segment_size, segment_count)
    sections = _table(file, sections_at, _SECTION, section_size, section_count)
    if segments is None or sections is None:
        return None
    loaded = [each for each in segments if each[0] == _LOAD]
    text = next((each for each in loaded if each[1] & _EXECUTABLE), None)
    if text is None:
        return None
    cut, shift = text[2] - text[2] % PAGE, (text[3] - text[2]) % HUGE
    if not shift or segments_at + len(segments) * _SEGMENT.size > cut or not _can_move(loaded, cut, shift):
        return None
    for table, at in ((segments, 2), (sections, 4)):
        for each in table:
            if each[at] >= cut:
                each[at] += shift
    if sections_at >= cut:
        header[6] = sections_at = sections_at + shift
    tables = {
        0: _HEADER.pack(*header),
        segments_at: b"".join(_SEGMENT.pack(*each) for each in segments),
        sections_at: b"".join(_SECTION.pack(*each) for each in sections),
    }
    return _Plan(cut, shift, tables)


def _can_move(loaded: list[list[int]], cut: int, shift: int) -> bool:
    """Whether what is loaded from the text on stays as its alignment wants it, and nothing before reaches beyond."""
    return all(
        shift % max(PAGE, alignment) == 0 if offset >= cut else offset + size <= cut + PAGE
        for _, _, offset, _, _, size, _, alignment in loaded
    )


def _table(file: BinaryIO, place: int, entry: struct.Struct, size: int, count: int) -> list[list[int]] | None:
    """None if it is not as expected."""
    if count and size != entry.size:
        return None
    file.seek(place)
    data = file.read(entry.size * count)
    return [list(each) for each in entry.iter_unpack(data)] if len(data) == entry.size * count else None
