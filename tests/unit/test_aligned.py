"""Copies of programs whose text can be in huge pages."""

import io
import struct

import pytest

from buntime.sandboxes.kernel.aligned import HUGE, PAGE, copy_aligned

BASE = 0x200000
READ, RUN, WRITE = 4, 5, 6
LOAD, TLS = 1, 7
Segment = tuple[int, int, int, int, bytes, int]  # kind, flags, place in the file, address, what it holds, alignment


def program(*segments: Segment, sections: int = 2) -> bytes:
    """An ELF file. Its sections begin where the segments do, and their table is at the end."""
    end = max(place + len(data) for _, _, place, _, data, _ in segments)
    file = bytearray(end)
    for _, _, place, _, data, _ in segments:
        file[place : place + len(data)] = data
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE, 64, end, 0, 64, 56, len(segments), 64, sections, 0
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, place, address, address, len(data), len(data), alignment)
        for kind, flags, place, address, data, alignment in segments
    )
    file[: len(header) + len(table)] = header + table
    for _, _, place, address, data, _ in segments[:sections]:
        file += struct.pack("<IIQQQQIIQQ", 0, 1, 2, address, place, len(data), 0, 0, 1, 0)
    return bytes(file)


def parts(file: bytes, place: int, count: int, form: str) -> list[tuple[int, ...]]:
    entry = struct.Struct(form)
    return [entry.unpack_from(file, place + n * entry.size) for n in range(count)]


def loaded(file: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, address and bytes of each segment but the first, which has the tables."""
    segments_at, _, _, _, _, count = struct.unpack_from("<QQIHHH", file, 32)
    segments = parts(file, segments_at, count, "<IIQQQQQQ")[1:]
    return [(each[0], each[3], file[each[2] : each[2] + each[5]]) for each in segments]


def named(file: bytes) -> list[tuple[int, bytes]]:
    """Address and bytes of each section."""
    (sections_at,) = struct.unpack_from("<Q", file, 40)
    sections = parts(file, sections_at, struct.unpack_from("<H", file, 60)[0], "<IIQQQQIIQQ")
    return [(each[3], file[each[4] : each[4] + each[5]]) for each in sections]


def copied(file: bytes) -> bytes:
    target = io.BytesIO()
    copy_aligned(io.BytesIO(file), target)
    return target.getvalue()


def usual(text_address: int = BASE + 0x9000 + 0x678, alignment: int = PAGE) -> bytes:
    """As linkers make it: one page of the file has the end of what is read and the beginning of what is run."""
    text_at, data_at = 0x1678, 0x2A10
    return program(
        (LOAD, READ, 0, BASE, b"r" * text_at, PAGE),
        (LOAD, RUN, text_at, text_address, bytes(range(256)) * 16, PAGE),
        (LOAD, WRITE, data_at, 0x400000 + data_at, b"data" * 300, alignment),
        (TLS, READ, data_at, 0x400000 + data_at, b"data" * 20, 16),
        sections=3,
    )


def test_text_is_where_huge_pages_can_hold_it_and_all_that_is_loaded_is_the_same() -> None:
    file = usual()
    copy = copied(file)
    text = parts(copy, 64, 2, "<IIQQQQQQ")[1]
    assert (text[3] - text[2]) % HUGE == 0
    assert loaded(copy) == loaded(file)
    assert copy[64 + 4 * 56 : 0x1678] == file[64 + 4 * 56 : 0x1678]
    assert len(copy) - len(file) == 0x8000


def test_tools_find_the_sections_of_the_copy() -> None:
    file = usual()
    assert named(copied(file))[1:] == named(file)[1:]


def test_no_segment_loses_its_own_alignment() -> None:
    for place, address, _, alignment in (
        (each[2], each[3], each[5], each[7]) for each in parts(copied(usual()), 64, 4, "<IIQQQQQQ")
    ):
        assert place % alignment == address % alignment


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"#!/bin/sh\n",
        usual()[:40],
        usual()[:100],
        usual()[:-10],
        usual(text_address=BASE + 0x1678),
        usual(alignment=HUGE),
        b"\x7fELF\x01\x01" + usual()[6:],
        b"\x7fELF\x02\x02" + usual()[6:],
        usual()[:54] + b"\xff" + usual()[55:],
        usual()[:58] + b"\xff" + usual()[59:],
        usual()[:56] + b"\xff\xff" + usual()[58:],
        usual()[:32] + b"\xff" * 8 + usual()[40:],
        usual()[:40] + b"\xff" * 8 + usual()[48:],
        usual()[: usual().rindex(b"data") + 4 + 64 + 24]
        + b"\xff" * 8
        + usual()[usual().rindex(b"data") + 4 + 64 + 32 :],
        program((LOAD, RUN, 0, BASE + 0x9000, b"x" * 0x3000, PAGE)),
        program((LOAD, READ, 0, BASE, b"r" * 0x3000, PAGE)),
        program((LOAD, READ, 0, BASE, b"r" * 0x4000, PAGE), (LOAD, RUN, 0x1000, BASE + 0x9000, b"x" * 0x1000, PAGE)),
    ],
    ids=[
        "empty",
        "script",
        "cut in its header",
        "cut in its segments",
        "cut in its sections",
        "aligned already",
        "a part that must not move",
        "32 bits",
        "big-endian",
        "other segments",
        "other sections",
        "more segments than it has",
        "segments beyond all files",
        "sections beyond all files",
        "a section beyond all files",
        "text at its beginning",
        "no text",
        "parts that overlap",
    ],
)
def test_anything_else_is_copied_as_it_is(file: bytes) -> None:
    assert copied(file) == file
