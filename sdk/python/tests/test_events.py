"""Server-Sent Events, split anywhere."""

from buntime_sdk.events import EventParser, ServerEvent
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["stdout", "stderr", "result", "exit"])
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=12)
EVENTS = st.lists(st.tuples(NAMES, st.lists(TEXTS, min_size=1, max_size=3)), max_size=6)


def parsed(parts: list[bytes]) -> list[ServerEvent]:
    parser = EventParser()
    return [event for part in parts for event in parser.feed(part)]


def written(events: list[tuple[str, list[str]]], line_end: str) -> bytes:
    blocks = []
    for number, (name, lines) in enumerate(events):
        blocks += [f"event: {name}", f"id: {number}", *(f"data: {line}" for line in lines), "", ": silence", ""]
    return "".join(line + line_end for line in blocks).encode()


@given(EVENTS, st.sampled_from(["\n", "\r\n"]), st.data())
def test_events_are_the_same_wherever_the_bytes_are_split(
    events: list[tuple[str, list[str]]], line_end: str, data: st.DataObject
) -> None:
    content = written(events, line_end)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(content)))))
    parts = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    expected = [ServerEvent(name, "\n".join(lines), str(number)) for number, (name, lines) in enumerate(events)]
    assert parsed(parts) == expected


def test_events_are_parsed_byte_by_byte() -> None:
    content = "event: stdout\nid: 7\ndata: olá 🎉\n\n".encode()
    assert parsed([bytes([byte]) for byte in content]) == [ServerEvent("stdout", "olá 🎉", "7")]


def test_an_event_is_returned_with_the_byte_that_ends_it() -> None:
    parser = EventParser()
    assert list(parser.feed(b"event: stdout\ndata: 1\n")) == []
    assert list(parser.feed(b"\n")) == [ServerEvent("stdout", "1", "")]


def test_comments_are_ignored_and_the_last_id_is_kept() -> None:
    assert parsed([b": hello\n\nid: 3\ndata: a\n\n: silence\n\ndata:b\n\n"]) == [
        ServerEvent("message", "a", "3"),
        ServerEvent("message", "b", "3"),
    ]


def test_an_incomplete_event_at_the_end_is_ignored() -> None:
    assert parsed([b"data: 1\n\ndata: 2\n"]) == [ServerEvent("message", "1", "")]
