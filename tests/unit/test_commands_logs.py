"""`buntime logs` for a process that never stops writing."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from buntime_cli.commands.processes import _chosen, _entries, last_lines
from buntime_sdk import LogEntry, LogPage


class Busy:
    """Has one more entry on each call."""

    def __init__(self, before: int) -> None:
        self._written = before

    def logs(self, *, cursor: int = 0) -> LogPage:
        self._written += 1
        entry = LogEntry("stdout", str(cursor), datetime(2026, 1, 1, tzinfo=UTC))
        return LogPage([entry], cursor + 1, self._written)


def test_logs_print_only_what_existed_at_the_start() -> None:
    entries = list(_entries(cast(Any, Busy(before=99)), follow=False))
    assert [entry.data for entry in entries] == [str(number) for number in range(100)]


def test_reading_ends_if_a_log_has_less_than_it_says() -> None:
    empty = SimpleNamespace(logs=lambda **_: LogPage([], 0, 1 << 40))
    assert list(_entries(cast(Any, empty), follow=False)) == []


def _entry(data: str, minute: int = 0) -> LogEntry:
    return LogEntry("stdout", data, datetime(2026, 1, 1, 10, minute, tzinfo=UTC))


@pytest.mark.parametrize(
    ("pieces", "count", "shown"),
    [
        (["a\nb\n", "c\n"], 2, "b\nc\n"),
        (["a\nb\nc"], 2, "b\nc"),
        (["a", "b\nc", "d\n"], 1, "cd\n"),
        (["a\n", "b\n"], 9, "a\nb\n"),
        (["a\n", "\n"], 1, "\n"),
        (["a\n"], 0, ""),
        ([], 3, ""),
    ],
)
def test_tail_shows_the_last_lines_of_all_pieces_together(pieces: list[str], count: int, shown: str) -> None:
    assert "".join(entry.data for entry in last_lines([_entry(piece) for piece in pieces], count)) == shown


def test_since_leaves_out_what_was_written_before() -> None:
    page = LogPage([_entry("old\n", 1), _entry("new\n", 2), _entry("newest\n", 3)], 3, 3)
    process = cast(Any, SimpleNamespace(logs=lambda **_: page))
    then = datetime(2026, 1, 1, 10, 2, tzinfo=UTC)
    assert [entry.data for entry in _chosen(process, False, then, None)] == ["new\n", "newest\n"]
    assert [entry.data for entry in _chosen(process, False, then, 1)] == ["newest\n"]
