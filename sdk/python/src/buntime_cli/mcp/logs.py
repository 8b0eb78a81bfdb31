"""The whole kept log of a process."""

from dataclasses import dataclass

from buntime_sdk import AsyncProcess, LogPage

from buntime_cli.mcp.output import Kept

PAGE = 1 << 20  # bytes: the most that the API returns at once
MOST_PAGES = 400  # a page has at most 4096 writes, and writes can be tiny


@dataclass(frozen=True, slots=True)
class Log:
    """`last`: the last page. `dropped`: bytes that are no longer kept."""

    text: str
    last: LogPage
    dropped: int


async def whole_log(process: AsyncProcess) -> Log:
    """Reads up to the end that the log has now: a process may write faster than this reads."""
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
