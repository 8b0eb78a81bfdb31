"""One call shows the newest part of a long log, and a process that never ends does not block the call."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from buntime_cli.mcp.logs import MOST_PAGES, PAGE, whole_log
from buntime_cli.mcp.output import KEPT
from buntime_sdk import AsyncProcess, LogEntry, LogPage
from buntime_sdk.testing import AsyncFakeBuntime, FakeResult

KEPT_BYTES = 16 << 20  # the API's limit on a log


async def started(client: AsyncFakeBuntime, result: FakeResult) -> AsyncProcess:
    client.on_start("write", result)
    return await (await client.sessions.create()).processes.start("write")


async def test_a_long_log_is_read_to_its_end() -> None:
    client = AsyncFakeBuntime()
    whole = "".join(f"{number}\n" for number in range(300_000)) + "LAST\n"
    process = await started(client, FakeResult(whole, exit_code=3))
    log = await whole_log(process)
    assert log.text == whole
    assert (log.last.cursor, log.last.exit_code, log.dropped) == (len(whole), 3, 0)
    asked = [one.query for one in client.requests if one.path == "/processes/logs"]
    assert len(asked) == 2
    assert {one["limit"] for one in asked} == {str(PAGE)}


async def test_a_log_without_output_is_requested_once() -> None:
    client = AsyncFakeBuntime()
    log = await whole_log(await started(client, FakeResult(running=True)))
    assert (log.text, log.last.cursor, log.last.status) == ("", 0, "running")
    assert [one.path for one in client.requests].count("/processes/logs") == 1


@dataclass
class Writing(AsyncProcess):
    """A process that writes `size` bytes before each call. Its log keeps the last `kept` bytes."""

    size: int
    kept: int = KEPT_BYTES
    ends_after: int | None = None  # calls
    pages: list[int] = field(default_factory=list)
    written: int = 0

    async def logs(self, *, cursor: int | None = None, limit: int | None = None) -> LogPage:
        is_running = self.ends_after is None or len(self.pages) < self.ends_after
        self.written += self.size if is_running else 0
        begin = max(cursor or 0, self.written - self.kept)
        count = min(self.written - begin, limit or PAGE)
        self.pages.append(count)
        entries = [LogEntry("stdout", "x" * count, datetime(2026, 1, 1, tzinfo=UTC))] if count else []
        dropped = begin - (cursor or 0)
        return LogPage(entries, begin + count, self.written, dropped, "running" if is_running else "exited")


@pytest.mark.parametrize("size", [1, 100, 5_000, 100_000, PAGE, 50 * PAGE])
async def test_a_process_that_never_stops_writing_does_not_block_the_call(size: int) -> None:
    process = Writing(size)
    log = await whole_log(process)
    assert len(process.pages) <= MOST_PAGES
    assert sum(process.pages) < KEPT_BYTES + PAGE
    assert log.last.cursor >= size
    assert log.last.cursor == log.dropped + sum(process.pages)
    assert len(log.text) <= 3 * KEPT


async def test_a_process_that_writes_a_little_now_and_then_is_read_once() -> None:
    process = Writing(10)
    assert (await whole_log(process)).last.cursor == 10
    assert process.pages == [10]


async def test_a_log_that_promises_more_than_it_has_does_not_block_the_call() -> None:
    process = Writing(1, ends_after=0)
    process.written = 0
    assert (await whole_log(process)).text == ""
    assert len(process.pages) == 1


async def test_dropped_bytes_are_counted_on_every_page() -> None:
    process = Writing(3 * PAGE, kept=2 * PAGE, ends_after=4)
    log = await whole_log(process)
    assert log.last.cursor >= 3 * PAGE
    assert log.dropped == log.last.cursor - sum(process.pages) > 0
