"""All that is kept of what a process has written, to its end."""

from dataclasses import dataclass

from buntime_sdk import AsyncProcess, LogPage

from buntime.mcp_server.output import Kept

PAGE = 1 << 20  # bytes: the most that the API gives at once
KEPT_BYTES = 16 << 20  # that the API keeps of a log
MOST_PAGES = 400  # a page has 4096 writes at the most, and a log may be of very small ones
SHORT = 4096  # bytes: a page with fewer is the last one, or that of the end of a file of the log


@dataclass(frozen=True, slots=True)
class Log:
    """`last`: the last page. `dropped`: bytes that are not kept."""

    text: str
    last: LogPage
    dropped: int


async def whole_log(process: AsyncProcess) -> Log:
    """To its end, or, where the process writes faster than it is read, to about where that was at the beginning."""
    kept, cursor, dropped, was_short = Kept(), 0, 0, False
    for _ in range(MOST_PAGES):
        page = await process.logs(cursor=cursor, limit=PAGE)
        for entry in page.entries:
            kept.add(entry.data)
        dropped += page.dropped
        is_end = page.cursor == cursor or page.cursor - dropped >= KEPT_BYTES
        is_short = page.cursor - cursor - page.dropped < SHORT
        cursor = page.cursor
        if is_end or (is_short and was_short and page.status == "running"):
            break
        was_short = is_short
    return Log(kept.whole(), page, dropped)
