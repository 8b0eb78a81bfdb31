"""The one thread that writes. It commits all queued changes together."""

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
    """The outcome of a change: `failure`, or the `value` that its work returned."""

    value: object = None
    failure: Exception | None = None


Settle = Callable[[Outcome], None]
_Change = tuple[Work, Settle]


class Writer:
    """Commits changes from one event loop, in their order.

    A commit costs a flush of the disk; changes that come while one is under way share the next. Each
    change has a savepoint: one that fails does not undo its neighbours. Nobody is told before the
    commit is durable, and a caller that went away changes nothing of this.
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
        """Runs `work` in the thread, inside a transaction, and `settle` on the loop when the outcome is known.

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
        """Waits for at least one change. Returns nothing when no more will come."""
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
            self._queue.put(None)  # leave the end for the next call; nothing queues behind it
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
        """Runs one change within the transaction. Raises only what ends the transaction for all changes."""
        self._connection.execute("SAVEPOINT change")
        try:
            outcome = Outcome(work(self._connection))
        except Exception as failure:  # raised at the caller that waits for it
            if not self._connection.in_transaction:  # disk full, I/O error: SQLite undid everything
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
        except RuntimeError:  # the loop is closed: nobody waits
            return


def _as_seen(failure: Exception) -> Exception:
    """Unavailable for a shortage that passes; any other failure unchanged."""
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
        seen = Unavailable("The server cannot store changes at the moment. Try again shortly.")
        seen.__cause__ = failure
        return seen
    return failure
