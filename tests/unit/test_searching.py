"""The output of a session's rg is not trusted."""

import json

import pytest

from buntime.inside import Match
from buntime.sandboxes.inside import searching
from buntime.sandboxes.inside.searching import Enough, _Search


def event(path: object, line: object, number: object = 1, *spans: tuple[int, int]) -> bytes:
    submatches = [{"match": {"text": ""}, "start": start, "end": end} for start, end in spans]
    found = {"path": path, "lines": line, "line_number": number, "absolute_offset": 0, "submatches": submatches}
    return json.dumps({"type": "match", "data": found}).encode() + b"\n"


async def taken(content: bytes, size: int = 1 << 20, *, names: bool = False, limit: int = 10) -> list[Match]:
    search = _Search(names, limit)
    for start in range(0, len(content), size):
        await search("stdout", content[start : start + size])
    return search.matches


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_matches_are_read_however_they_are_cut(size: int) -> None:
    content = event({"text": "./a"}, {"text": "é ab é\n"}, 3, (3, 4), (6, 8))
    content += event({"bytes": "Li//"}, {"bytes": "/2E="}, 4, (1, 2))
    assert await taken(content, size) == [
        Match("a", 3, "é ab é", [(2, 3), (5, 6)]),
        Match("\udcff", 4, "�a", [(1, 2)]),
    ]
    assert await taken(b"./a\nb\0./c\xff\0", size, names=True) == [Match("a\nb"), Match("c\udcff")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"type": "match"}',
        b'{"type": "begin", "data": {}}',
        b'{"type": "match", "data": {"path": 1}}',
        event({"bytes": "?"}, {"text": "a"}).strip(),
        event({"text": "a"}, {"text": "a"}, "1").strip(),
    ],
)
async def test_anything_but_a_match_is_skipped(line: bytes) -> None:
    good = event({"text": "a"}, {"text": "x"}, 1, (0, 1))
    assert await taken(line + b"\n" + good) == [Match("a", 1, "x", [(0, 1)])]


async def test_impossible_ranges_are_left_out() -> None:
    spans = [(0, 1), (0, 1), (-1, 2), (2, 1), (2, 99), (2, 3)]
    (match,) = await taken(event({"text": "a"}, {"text": "abc"}, 1, *spans))
    assert match.ranges == [(0, 1), (2, 3)]


async def test_a_long_line_is_shown_around_its_first_match() -> None:
    (match,) = await taken(event({"text": "a"}, {"text": "x" * 5000 + "y" * 5000}, 1, (5000, 10_000)))
    assert match.text == "x" * 200 + "y" * 800
    assert match.ranges == [(200, 1000)]


async def test_a_search_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    content = event({"text": "a"}, {"text": "x"}, 1, (0, 1))
    with pytest.raises(Enough):
        await taken(content * 3, limit=2)
    monkeypatch.setattr(searching, "LONGEST_LINE", 100)
    search = _Search(names=False, limit=2)
    await search("stdout", b"x" * 99)
    await search("stdout", b"y" * 99 + b"\n" + b"z" * 99)
    assert (search.truncated, search.matches) == (True, [])
    monkeypatch.setattr(searching, "MOST_PRINTED", 1000)
    with pytest.raises(Enough):
        await taken(b"z" * 2000, 99)
