"""All that is kept of what a process has written, to its end."""

from dataclasses import dataclass

from buntime_sdk import AsyncProcess, LogPage

from buntime.clients.mcp.output import Kept

PAGE = 1 << 20  # bytes: the most that the API gives at once
MOST_PAGES = 400  # a page has 4096 writes at the most, and a log may be of very small ones


@dataclass(frozen=True, slots=True)
class Log:
    """`last`: the last page. `dropped`: bytes that are not kept."""

    text: str
    last: LogPage
    dropped: int


async def whole_log(process: AsyncProcess) -> Log:
    """To where its end was at the beginning: a process may write faster than it is read."""
    kept, dropped = Kept(), 0
    page = await process.logs(limit=PAGE)
    end = page.end
    for _ in range(MOST_PAGES):
        for entry in page.entries:
            kept.add(entry.data)
        dropped += page.dropped
        if page.cursor >= end or not (page.entries or page.dropped):
            break
        page = await process.logs(cursor=page.cursor, limit=PAGE)
    return Log(kept.whole(), page, dropped)
