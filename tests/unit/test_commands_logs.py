"""`buntime logs` for a process that never stops writing."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from buntime_cli.commands.processes import _entries
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
