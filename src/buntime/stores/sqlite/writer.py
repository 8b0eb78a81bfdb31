"""The only thread that writes. It commits all queued changes at once."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass

from buntime.errors import Unavailable

LARGEST_GROUP = 256  # changes in one commit

Work = Callable[[sqlite3.Connection], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a change: a `failure`, or the `value` that its work returned."""

    value: object = None
    failure: Exception | None = None


Settle = Callable[[Outcome], None]
_Change = tuple[Work, Settle]


class Writer:
    """Commits changes from one event loop in their order.

    A commit costs a disk flush, so changes that arrive during a commit share the next one. Each change has a savepoint:
    a failed change does not undo its neighbours. Callers get their outcome only when the commit is durable. A caller
    that left does not affect the change.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Takes over the connection. Call this on the event loop that gets the outcomes."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._closing = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work, settle: Settle) -> None:
        """Runs `work` in the thread, inside a transaction, and then `settle` on the loop.

        Raises Unavailable after `close`.
        """
        if self._closing:
            raise Unavailable("The server is stopping.")
        self._queue.put((work, settle))

    async def close(self) -> None:
        """Returns when all submitted changes are settled and the connection is closed. Idempotent."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            outcomes = self._commit(group)
            self._on_loop(self._settle_all, group, outcomes)
        self._connection.close()
        self._on_loop(self._ended.set_result, None)

    def _next_group(self) -> list[_Change]:
        """Waits for at least one change. Returns an empty list when there are no more."""
        group: list[_Change] = []
        change = self._queue.get()
        while change is not None:
            group.append(change)
            if len(group) == LARGEST_GROUP:
                return group
            try:
                change = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # the next call sees the end; nothing can be queued after it
        return group

    def _commit(self, group: list[_Change]) -> list[Outcome]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(work) for work, _ in group]
            self._connection.execute("COMMIT")
        except sqlite3.Error as failure:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [Outcome(failure=_as_seen(failure))] * len(group)
        return outcomes

    def _attempt(self, work: Work) -> Outcome:
        """Runs one change within the transaction. Raises only errors that end the whole transaction."""
        self._connection.execute("SAVEPOINT change")
        try:
            outcome = Outcome(work(self._connection))
        except Exception as failure:  # passed to the waiting caller
            if not self._connection.in_transaction:  # disk full or I/O error: SQLite rolled back everything
                raise
            self._connection.execute("ROLLBACK TO change")
            outcome = Outcome(failure=_as_seen(failure))
        self._connection.execute("RELEASE change")
        return outcome

    @staticmethod
    def _settle_all(group: list[_Change], outcomes: list[Outcome]) -> None:
        for (_, settle), outcome in zip(group, outcomes, strict=True):
            settle(outcome)

    def _on_loop[*Ts](self, call: Callable[[*Ts], object], *args: *Ts) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed, so nobody waits
            return


def _as_seen(failure: Exception) -> Exception:
    """A temporary shortage becomes Unavailable. Other failures stay as they are."""
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
        seen = Unavailable("The server cannot store changes right now. Try again shortly.")
        seen.__cause__ = failure
        return seen
    return failure
