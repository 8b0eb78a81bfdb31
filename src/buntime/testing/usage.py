"""The part of the fake store about usage."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from buntime.session import Session, State
from buntime.testing.kept import FakeKeptFiles
from buntime.usage import (
    DAY_MS,
    NOTHING,
    Amounts,
    OpenWindow,
    Reading,
    Window,
    archived_bytes,
    closes_window,
    days_of,
    first_day_of,
    first_window,
    month_of,
)


class FakeUsage(FakeKeptFiles):
    """See `testing.store.FakeStore`."""

    def __init__(self) -> None:
        super().__init__()
        self.open_windows: dict[str, OpenWindow] = {}  # by session
        self.windows: dict[tuple[str, int], Window] = {}  # by account and place
        self.places: dict[str, int] = {}  # account → place of its last window
        self.days: dict[tuple[str, str, int], Amounts] = {}  # by account, session and day

    async def note_usage(self, readings: Mapping[str, Reading]) -> None:
        for session_id, reading in readings.items():
            session, window = self.sessions.get(session_id), self.open_windows.get(session_id)
            if session is None or session.state is State.DELETING:
                continue
            reading = reading.of(session.sandbox)
            if window is not None:
                window = self._noted(window, reading)
                if window.is_long:
                    self._add_window(window.close())
                    window = window.following(window.state)
                self.open_windows[session_id] = window
            else:
                self._begin(session, reading)

    async def list_windows(self, account_id: str, after: int, limit: int) -> tuple[Sequence[Window], int]:
        found = {
            place: window
            for (account, place), window in sorted(self.windows.items())
            if account == account_id and place > after
        }
        places = list(found)[:limit]
        place = places[-1] if places else min(after, self.places.get(account_id, 0))
        return [found[place] for place in places], place

    async def usage_by_day(
        self, account_id: str, first: int, last: int, session_id: str | None = None
    ) -> Sequence[tuple[int, Amounts]]:
        found: dict[int, Amounts] = {}
        for (account, session, day), amounts in sorted(self.days.items(), key=lambda item: item[0][2]):
            if account == account_id and session_id in (None, session) and first <= day <= last:
                found[day] = found.get(day, NOTHING) + amounts
        return list(found.items())

    async def usage_by_session(
        self, account_id: str, first: int, last: int, after: str, limit: int
    ) -> tuple[Sequence[tuple[str, Amounts]], str | None]:
        found: dict[str, Amounts] = {}
        for (account, session, day), amounts in sorted(self.days.items(), key=lambda item: item[0]):
            if account == account_id and session > after and first <= day <= last:
                found[session] = found.get(session, NOTHING) + amounts
        page = list(found.items())[:limit]
        return page, page[-1][0] if len(found) > limit else None

    async def newest_window_end(self) -> int | None:
        return max((window.ended_at for window in self.windows.values()), default=None)

    async def drop_usage(self, before_day: int) -> int:
        first = first_day_of(month_of(before_day))
        windows = {at: window for at, window in self.windows.items() if window.ended_at >= before_day * DAY_MS}
        days = {key: amounts for key, amounts in self.days.items() if key[2] >= first}
        gone = len(self.windows) - len(windows) + len(self.days) - len(days)
        self.windows, self.days = windows, days
        return gone

    def _begin(self, session: Session, reading: Reading | None) -> None:
        if reading is not None:
            self.open_windows[session.id] = first_window(session, reading)

    def _follow(self, old: Session, new: Session, reading: Reading | None) -> None:
        closes, archived = closes_window(old, new), archived_bytes(new)
        if not closes and archived == archived_bytes(old):
            return
        window = self.open_windows.pop(new.id, None)
        if window is None:
            if new.state is not State.DELETING:
                self._begin(new, reading)
            return
        if reading is not None:
            window = self._noted(window, reading)
        if closes:
            self._add_window(window.close())
            window = window.following(new.state, reading.next if reading else None)
        if new.state is not State.DELETING:
            self.open_windows[new.id] = replace(window, archived=archived)

    def _add_window(self, window: Window) -> None:
        self.places[window.account] = self.places.get(window.account, 0) + 1
        self.windows[window.account, self.places[window.account]] = window

    def _noted(self, window: OpenWindow, reading: Reading) -> OpenWindow:
        noted = window.note(reading)
        used = noted.amounts - window.amounts
        if used != NOTHING:
            for day, share in days_of(used, noted.noted.at):
                key = window.account, window.session, day
                self.days[key] = self.days.get(key, NOTHING) + share
        return noted
