"""The log of a process: all that is kept, or part by part."""

from dataclasses import dataclass

from buntime_sdk import AsyncProcess, LogPage

from buntime_cli.mcp.output import Kept

PAGE = 1 << 20  # bytes: the most that the API returns at once
MOST_PAGES = 400  # a page has at most 4096 writes, and writes can be tiny
PART = 16_000  # characters of a part, and the bytes that it requests: a page ends with a whole write, which may be long


@dataclass(frozen=True, slots=True)
class Log:
    """`last`: the last page. `dropped`: bytes that are no longer kept. What follows begins `skip` characters after
    `cursor`.
    """

    text: str
    last: LogPage
    dropped: int
    cursor: int
    skip: int = 0


async def log_part(process: AsyncProcess, cursor: int, skip: int) -> Log:
    """Reads from `skip` characters after the cursor on. Parts that follow each other leave nothing out."""
    page = await process.logs(cursor=cursor, limit=PART)
    begin = max(0, skip - page.dropped)  # what is no longer kept need not be skipped
    rest = text_of(page)[begin:]
    if len(rest) <= PART:
        return Log(rest, page, page.dropped, page.cursor)
    end = rest.rfind("\n", PART // 2, PART) + 1 or PART
    return Log(rest[:end], page, page.dropped, cursor + page.dropped, begin + end)


def text_of(page: LogPage) -> str:
    return "".join(entry.data for entry in page.entries)


async def whole_log(process: AsyncProcess) -> Log:
    """Reads up to the end that the log has now: a process may write faster than this reads."""
    kept, dropped = Kept(), 0
    page = await process.logs(limit=PAGE)
    end = page.end
    for _ in range(MOST_PAGES):
        kept.add(text_of(page))
        dropped += page.dropped
        if page.cursor >= end or not (page.entries or page.dropped):
            break
        page = await process.logs(cursor=page.cursor, limit=PAGE)
    return Log(kept.whole(), page, dropped, page.cursor)
