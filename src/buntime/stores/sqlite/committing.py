"""Changes of the SQLite file: each is committed whole, by the one writer."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import cast

from buntime.errors import IdempotencyInProgress
from buntime.event import AccountEvent
from buntime.ports import Answer
from buntime.stores.rows.answers import pack_aside
from buntime.stores.rows.events import event_row
from buntime.stores.sqlite import answers, events, sessions
from buntime.stores.sqlite.writer import Outcome, Writer
from buntime.stores.waiting import Noted, call_each, newest

TOUCH_SECONDS = 2.0  # how long noted activity may stay unwritten
NOTED_SECONDS = 1.0  # the same for noted events


class Committing:
    """Commits changes, and passes noted activity and noted events along with them."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._touched: dict[str, int] = {}  # activity that the writer does not have yet
        self._noted: list[Noted] = []
        self._told: asyncio.Future[None] | None = None  # the last calls of `stored` are done
        self._flush: asyncio.TimerHandle | None = None
        self._stored: Callable[[], None] = _nothing  # after each commit

    async def _change[T, R](
        self, work: Callable[[sqlite3.Connection], T], committed: Callable[[T], R] | None = None
    ) -> R:
        """Commits `work`, then calls `committed` on the loop and returns its result.

        A cancelled caller only stops waiting: the change and `committed` still happen.
        """
        waiter: asyncio.Future[R] = self._loop.create_future()

        def settle(outcome: Outcome) -> None:
            if outcome.failure is None:
                self._stored()
                value = cast(T, outcome.value)
                result = cast(R, value) if committed is None else committed(value)
                if not waiter.done():
                    waiter.set_result(result)
            elif not waiter.done():
                waiter.set_exception(outcome.failure)

        self._flush_noted()
        self._writer.submit(work, settle)
        return await waiter

    async def _change_and_answer[T, R](
        self,
        answer: Answer | None,
        work: Callable[[sqlite3.Connection], T],
        committed: Callable[[T], R] | None = None,
        told: Sequence[AccountEvent] = (),
    ) -> R:
        """The same, together with the answer if any and the events `told`. Raises IdempotencyInProgress if the answer's
        key has one already."""
        stored = None if answer is None else await pack_aside(answer)

        def both(connection: sqlite3.Connection) -> T:
            value = work(connection)
            events.add_events(connection, told)
            if stored is not None and not answers.add_answer(connection, stored):
                raise IdempotencyInProgress("Another request with this key just finished. Retry to get its response.")
            return value

        return await self._change(both, committed)

    def _note_activity(self, session_id: str, now: int) -> None:
        self._touched[session_id] = now
        self._flush_later(TOUCH_SECONDS)

    def _note_events(self, told: Sequence[AccountEvent], stored: Callable[[], None] | None) -> None:
        self._noted.append(Noted([event_row(event) for event in told], stored))
        self._flush_later(NOTED_SECONDS)

    async def _end_changes(self) -> None:
        """Waits for changes that are under way, and stores the last activity and the last events."""
        self._flush_noted()
        await self._writer.close()
        if self._told is not None:
            await self._told
        if self._flush is not None:  # set again if the last activity could not be written
            self._flush.cancel()

    def _flush_later(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._flush is not None and self._flush.when() <= due:
            return
        if self._flush is not None:
            self._flush.cancel()
        self._flush = self._loop.call_at(due, self._flush_noted)

    def _flush_noted(self) -> None:
        """Passes noted activity and events to the writer, which adds them to its next commit."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self._touched and not self._noted:
            return
        touched, self._touched = self._touched, {}
        noted, self._noted = self._noted, []

        def work(connection: sqlite3.Connection) -> None:
            sessions.touch_sessions(connection, touched)
            events.add_noted(connection, [row for one in noted for row in one.rows])

        def settle(outcome: Outcome) -> None:
            if outcome.failure is not None:
                self._touched = touched | self._touched  # retried with the next commit
                self._noted = newest(noted + self._noted)
                self._flush_later(TOUCH_SECONDS)
                return
            if calls := [one.stored for one in noted if one.stored is not None]:
                self._told = self._loop.run_in_executor(None, call_each, calls)
            if any(one.rows for one in noted):
                self._stored()

        self._writer.submit(work, settle)


def _nothing() -> None:
    return None
