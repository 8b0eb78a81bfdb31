"""Output of any length is kept and cut so that its beginning, its end and what is missing can be seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.mcp_server import output
from buntime.mcp_server.filing import decoded
from buntime.mcp_server.output import SHOWN, Kept, cut


def kept(*texts: str) -> Kept:
    one = Kept()
    for text in texts:
        one.add(text)
    return one


@pytest.mark.parametrize("length", [0, 1, SHOWN - 1, SHOWN])
def test_what_is_short_is_shown_as_it_is(length: int) -> None:
    assert cut("x" * length, "read on") == "x" * length


def test_what_is_long_is_shown_by_its_beginning_and_end_and_says_how_to_read_on() -> None:
    text = "".join(f"{number}\n" for number in range(10_000))
    shown = cut(text, "read_file /tmp/a")
    assert shown.startswith("0\n1\n")
    assert shown.endswith("9998\n9999\n")
    assert f"… {len(text) - SHOWN * 2 // 3 - SHOWN // 3} characters left out: read_file /tmp/a …" in shown


@given(st.text(max_size=200), st.integers(3, 50))
def test_a_cut_loses_as_many_characters_as_it_says(text: str, shown: int) -> None:
    cut_text = cut(text, "more", shown)
    if len(text) <= shown:
        assert cut_text == text
        return
    head, tail = shown * 2 // 3, shown // 3
    assert cut_text == f"{text[:head]}\n… {len(text) - head - tail} characters left out: more …\n{text[-tail:]}"


@given(st.lists(st.text(min_size=1, max_size=30), max_size=30), st.integers(1, 40))
def test_of_very_much_the_beginning_and_the_end_are_kept(texts: list[str], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "KEPT", most)
        whole, written = kept(*texts).whole(), "".join(texts)
    if len(written) <= 2 * most:
        assert whole == written
        return
    beginning, gap, end = whole.partition("\n… ")
    if not gap or beginning != written[:most]:  # nothing was dropped, or the text has that mark itself
        assert whole == written or written[:most] == whole[:most]
        return
    number, _, last = end.partition(" characters are not kept …\n")
    assert int(number) == len(written) - most - len(last)
    assert written.endswith(last)
    assert len(last) >= most


@pytest.mark.parametrize(
    ("texts", "line"),
    [([], ""), (["one\ntwo\n"], "two"), (["one\n", "two"], "two"), (["a" * 300], "a" * 200), (["\n"], "")],
)
def test_the_last_line_is_what_a_watcher_sees(texts: list[str], line: str) -> None:
    assert kept(*texts).last_line() == line


@given(st.text(max_size=50), st.integers(0, 200))
def test_a_part_of_a_file_ends_before_a_letter_that_is_not_whole(text: str, size: int) -> None:
    part = text.encode()[:size]
    assert text.startswith(decoded(part))
    assert len(part) - len(decoded(part).encode()) < 4


def test_what_is_no_text_is_not_read_as_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        decoded(b"\xff\xfe")
