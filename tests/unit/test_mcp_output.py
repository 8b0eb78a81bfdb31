"""Output of any length is shortened so that its beginning, its end and the size of the gap are visible."""

from collections.abc import Sequence

import pytest
from buntime_cli.mcp import output
from buntime_cli.mcp.conversations import Opened
from buntime_cli.mcp.file_tools import decoded
from buntime_cli.mcp.output import SHOWN, Kept, cut
from buntime_cli.mcp.run_tools import FILES, PICTURES, VALUE, evaluated
from buntime_cli.mcp.run_watch import Watched, readable
from buntime_sdk import AsyncSession, Evaluation, Forms, Thrown
from buntime_sdk.testing import AsyncFakeBuntime
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import CallToolResult, ImageContent, TextContent


def kept(*texts: str) -> Kept:
    one = Kept()
    for text in texts:
        one.add(text)
    return one


@pytest.mark.parametrize("length", [0, 1, SHOWN - 1, SHOWN])
def test_short_output_is_shown_unchanged(length: int) -> None:
    assert cut("x" * length, "read on") == "x" * length


def test_long_output_shows_its_beginning_and_end_and_how_to_read_on() -> None:
    text = "".join(f"{number}\n" for number in range(10_000))
    shown = cut(text, "read_file /tmp/a")
    assert shown.startswith("0\n1\n")
    assert shown.endswith("9998\n9999\n")
    assert f"… {len(text) - SHOWN * 2 // 3 - SHOWN // 3} characters left out: read_file /tmp/a …" in shown


@given(st.text(max_size=200), st.integers(3, 50))
def test_a_cut_names_the_number_of_lost_characters(text: str, shown: int) -> None:
    cut_text = cut(text, "more", shown)
    if len(text) <= shown:
        assert cut_text == text
        return
    head, tail = shown * 2 // 3, shown // 3
    assert cut_text == f"{text[:head]}\n… {len(text) - head - tail} characters left out: more …\n{text[-tail:]}"


@given(st.lists(st.text(min_size=1, max_size=30), max_size=30), st.integers(1, 40))
def test_very_long_output_keeps_its_beginning_and_end(texts: list[str], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "KEPT", most)
        whole, written = kept(*texts).whole(), "".join(texts)
    if len(written) <= 2 * most:
        assert whole == written
        return
    beginning, gap, end = whole.partition("\n… ")
    if not gap or beginning != written[:most]:  # nothing was dropped, or the text itself contains the mark
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
def test_progress_shows_the_last_line(texts: list[str], line: str) -> None:
    assert kept(*texts).last_line() == line


@given(st.text(max_size=50), st.integers(0, 200))
def test_a_part_of_a_file_ends_before_an_incomplete_character(text: str, size: int) -> None:
    part = text.encode()[:size]
    assert text.startswith(decoded(part))
    assert len(part) - len(decoded(part).encode()) < 4


def test_binary_content_is_not_read_as_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        decoded(b"\xff\xfe")


# --- displayed values of a run in a context ---


@pytest.fixture
async def session() -> AsyncSession:
    return await AsyncFakeBuntime().sessions.create()


async def of_context(
    session: AsyncSession,
    displayed: Sequence[Forms] = (),
    value: Forms | None = None,
    files: Sequence[str] = (),
    error: Thrown | None = None,
    *,
    process_limit_exceeded: bool = False,
) -> CallToolResult:
    result = Evaluation(
        exit_code=0,
        execution_time=1,
        memory_used=1,
        cpu_time=1,
        timed_out=False,
        files_written=files,
        process_limit_exceeded=process_limit_exceeded,
        result=value,
        error=error,
    )
    watched = Watched(result, list(displayed), {"stdout": "", "stderr": ""})
    return await evaluated(Opened(session, ""), watched, "ctx_a", is_new=False)


def text_of(result: CallToolResult) -> str:
    (text,) = [part.text for part in result.content if isinstance(part, TextContent)]
    return text


def pictures_of(result: CallToolResult) -> list[str]:
    return [part.data for part in result.content if isinstance(part, ImageContent)]


async def test_displayed_values_are_shown_in_order(session: AsyncSession) -> None:
    result = await of_context(session, [Forms("one"), Forms("two")], Forms("three"))
    assert "displayed:\none\ntwo\nvalue:\nthree\n" in text_of(result)
    assert result.structured_content is not None
    assert result.structured_content["displayed"] == "one\ntwo"
    assert "displayedFile" not in result.structured_content
    assert "displayed" not in ((await of_context(session)).structured_content or {})


async def test_a_file_has_the_rest_of_many_displayed_values(session: AsyncSession) -> None:
    texts = [f"{number}: {'x' * 2 * VALUE}" for number in range(3_000)]
    result = await of_context(session, [Forms(text) for text in texts])
    assert len(result.model_dump_json()) < 4 * SHOWN
    values = result.structured_content or {}
    assert values["displayed"].startswith("0: x")
    assert f"read_file {values['displayedFile']}" in text_of(result)
    whole = await session.files.read(values["displayedFile"])
    assert whole == "\n".join(cut(text, "print less", VALUE) for text in texts)


async def test_only_the_first_of_many_pictures_are_shown(session: AsyncSession) -> None:
    displayed = [Forms("a picture", png=f"{number:04}") for number in range(PICTURES + 2)]
    few = await of_context(session, displayed[: PICTURES - 1], Forms("the last", png="last"))
    assert pictures_of(few) == [*(f"{number:04}" for number in range(PICTURES - 1)), "last"]
    assert "more pictures" not in text_of(few)
    many = await of_context(session, displayed, Forms("the last", png="last"))
    assert pictures_of(many) == [f"{number:04}" for number in range(PICTURES)]
    assert "… 3 more pictures: " in text_of(many)


async def test_the_rest_of_many_written_files_is_counted(session: AsyncSession) -> None:
    names = [f"{number}.txt" for number in range(FILES + 7)]
    many = await of_context(session, files=names)
    values = many.structured_content or {}
    assert (values["filesWritten"], values["filesWrittenMore"]) == (names[:FILES], 7)
    assert f"{names[FILES - 1]} and 7 more\n" in text_of(many)
    few = await of_context(session, files=names[:FILES])
    assert "filesWrittenMore" not in (few.structured_content or {})
    assert f"{names[FILES - 1]}\n" in text_of(few)


async def test_a_run_that_reached_the_process_limit_says_so(session: AsyncSession) -> None:
    limited = await of_context(session, process_limit_exceeded=True)
    assert "process limit" in text_of(limited)
    assert (limited.structured_content or {})["processLimitExceeded"] is True
    assert "processLimitExceeded" not in ((await of_context(session)).structured_content or {})


async def test_a_very_long_error_is_cut(session: AsyncSession) -> None:
    result = await of_context(session, error=Thrown("Error", "x" * 10 * SHOWN, ""))
    assert len(result.model_dump_json()) < SHOWN


async def test_later_text_of_the_same_source_replaces_the_file(session: AsyncSession) -> None:
    for letter in "ab":
        _, path = await readable(session, "log", letter * 2 * SHOWN, "proc_a")
        assert path == "/tmp/buntime-output/proc_a.log.txt"
        assert await session.files.read(path) == letter * 2 * SHOWN
    _, other = await readable(session, "log", "c" * 2 * SHOWN)
    assert other != path
