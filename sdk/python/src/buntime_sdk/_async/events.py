"""What happened in the account."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from buntime_sdk._async.calls import AsyncCalls, Call, broken_stream
from buntime_sdk.errors import BuntimeError
from buntime_sdk.event_shapes import Event, EventPage, EventType
from buntime_sdk.from_json import from_wire

AWAY_SECONDS, LONGEST_PAUSE = 60.0, 5.0  # time allowed for a server restart; longest pause in it
SHORTEST_PAUSE, MOST_DOUBLINGS = 0.05, 16
LASTING_SECONDS = 10.0  # a connection that lasted this long resets the count of failures


class AsyncEvents:
    """The events of the account: what happened, and who caused it. They need the scope `account:read`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(
        self,
        *,
        session_id: str | None = None,
        type: EventType | None = None,  # noqa: A002 - the field's own name
        cursor: str | None = None,
        limit: int | None = None,
    ) -> EventPage:
        """Returns a page of events, oldest first. Its `cursor` is where the next page begins.

        `session_id`: only events of this session, which may be gone. `type`: only events of this type. `cursor`: where
        the page begins; the oldest event that is kept by default. `limit`: events, 1 to 1,000; 100 by default. Events
        are kept for 30 days. Raises InvalidRequest for a cursor that is none.
        """
        query = {"sessionId": session_id, "type": type, "cursor": cursor, "limit": limit}
        return from_wire(EventPage, await self._calls.json(Call("GET", "/events", query)))

    async def follow(
        self,
        *,
        session_id: str | None = None,
        type: EventType | None = None,  # noqa: A002 - the field's own name
        cursor: str | None = None,
    ) -> AsyncGenerator[Event]:
        """Streams events as they happen, without an end. The `cursor` of an event is where to follow on after it.

        `session_id`, `type`: as for `list`. `cursor`: where to begin; now by default.

        A broken connection resumes where it stopped: no event is lost or repeated. While the server restarts,
        reconnecting goes on for a minute. Raises ConnectionFailed after that, and ResourceLimitExceeded when the
        account has too many open streams.
        """
        failed, waited = 0, 0.0
        while True:
            began = time.monotonic()
            try:
                query = {"sessionId": session_id, "type": type, "cursor": cursor, "follow": True}
                call = Call("GET", "/events", query, is_retried=False)  # `follow` retries by itself
                async with self._calls.events(call) as events, aclosing(events):
                    async for event in events:
                        failed, waited = 0, 0.0
                        cursor = event.id or cursor
                        if event.name == "event":
                            yield replace(_event(event.told), cursor=cursor)
                raise broken_stream()
            except BuntimeError as failure:
                if time.monotonic() - began > LASTING_SECONDS:
                    failed, waited = 0, 0.0
                failed += 1
                delay = self._calls.delay_before(failure, 1 if waited < AWAY_SECONDS else failed)
                if delay is None:
                    raise
            longer = min(max(delay, SHORTEST_PAUSE) * 2 ** min(failed - 1, MOST_DOUBLINGS), LONGEST_PAUSE)
            delay = max(delay, longer)
            waited += delay
            await self._calls.wait(delay)


def _event(told: dict[str, Any]) -> Event:
    return from_wire(Event, told)
