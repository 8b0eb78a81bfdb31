"""What the account used."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk._async.cursors import AsyncCursorPages
from buntime_sdk.from_json import from_wire
from buntime_sdk.usage_shapes import UsageGroup, UsageReport, UsageWindow, time_text


class AsyncUsage:
    """What the account used, by the kernel's counters. It needs the scope `account:read`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def get(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        session_id: str | None = None,
        group_by: Literal["session", "day"] | None = None,
        page_size: int | None = None,
        cursor: str | None = None,
    ) -> UsageReport:
        """Adds up what was used in whole days in UTC.

        `since`, `until`: a date, or a datetime with its time zone, at most 400 days apart; by default the last 30 days.
        A date is its midnight, so that `until` is the first date that does not count. `session_id`: only this session,
        which may be gone. `group_by`: fills `groups` with days, or with one page of sessions by id. `page_size`: how
        many of these, 1 to 100; 100 by default. `cursor`: that of the page before.

        Raises SessionNotFound.
        """
        query: dict[str, Any] = {
            **{"from": time_text("since", since), "to": time_text("until", until), "sessionId": session_id},
            **{"groupBy": group_by, "limit": page_size, "cursor": cursor},
        }
        return from_wire(UsageReport, await self._calls.json(Call("GET", "/usage", query)))

    def sessions(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        page_size: int | None = None,
        cursor: str | None = None,
    ) -> AsyncCursorPages[UsageGroup]:
        """Lists what each session used, by id, with those that are gone.

        `since`, `until`: as in `get`. `page_size`: sessions a request, 1 to 100; 100 by default. `cursor`: where to go
        on, from an earlier list.
        """

        async def fetch(after: str | None) -> tuple[Sequence[UsageGroup], str | None]:
            told = await self.get(since=since, until=until, group_by="session", page_size=page_size, cursor=after)
            return told.groups, told.cursor

        return AsyncCursorPages(fetch, cursor)

    def windows(self, *, cursor: str | None = None, page_size: int | None = None) -> AsyncCursorPages[UsageWindow]:
        """Lists the closed windows, oldest first. They never change, and each has an id of its own.

        `cursor`: where to go on, from an earlier list; by default at the oldest that is kept. `page_size`: windows a
        request, 1 to 1000; 100 by default.
        """

        async def fetch(after: str | None) -> tuple[Sequence[UsageWindow], str | None]:
            told = await self._calls.json(Call("GET", "/usage/windows", {"cursor": after, "limit": page_size}))
            return [from_wire(UsageWindow, one) for one in told["windows"]], told["cursor"]

        return AsyncCursorPages(fetch, cursor)
