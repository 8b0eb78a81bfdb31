"""The part of the fake store about events."""

import json
from collections import Counter
from collections.abc import Sequence

from buntime.event import AccountEvent, EventType
from buntime.ports import NumberedEvent


class FakeEvents:
    """See `testing.store.FakeStore`."""

    def __init__(self) -> None:
        self.events: list[NumberedEvent] = []
        self._last = 0

    def note_events(self, events: Sequence[AccountEvent]) -> None:
        for event in events:
            json.dumps(event.data, default=dict)
        for event in events:
            self._last += 1
            self.events.append(NumberedEvent(self._last, event))

    async def list_events(
        self,
        account_id: str | None,
        *,
        after: int = 0,
        session: str | None = None,
        what: EventType | None = None,
        limit: int = 100,
    ) -> Sequence[NumberedEvent]:
        found = [
            numbered
            for numbered in self.events
            if numbered.number > after
            and account_id in (None, numbered.event.account)
            and session in (None, numbered.event.session)
            and what in (None, numbered.event.type)
        ]
        return found[:limit]

    async def newest_event(self, account_id: str) -> int:
        return max((numbered.number for numbered in self.events if numbered.event.account == account_id), default=0)

    async def drop_events(self, before: int, kept: int) -> int:
        young = [numbered for numbered in self.events if numbered.event.time >= before]
        left: Counter[str] = Counter(numbered.event.account for numbered in young)
        stays = []
        for numbered in young:
            if left[numbered.event.account] > kept:
                left[numbered.event.account] -= 1
            else:
                stays.append(numbered)
        dropped, self.events = len(self.events) - len(stays), stays
        return dropped
