"""Changes: each is committed whole, also when its caller leaves. What is only noted is stored in groups."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from buntime.errors import IdempotencyInProgress, MayNotAct, Unavailable
from buntime.event import AccountEvent, EventType
from buntime.fleet.members import Fenced, Membership
from buntime.ports import Answer
from buntime.session import Session
from buntime.stores.postgres.own import OwnSessions
from buntime.stores.postgres.transactions import Transaction, Transactions, Work
from buntime.stores.rows.answers import PackedAnswer, pack_aside
from buntime.stores.rows.events import event_row
from buntime.stores.rows.row import Values
from buntime.stores.waiting import Noted, call_each, newest

TOUCH_SECONDS = 2.0  # how long noted activity may stay unwritten
NOTED_SECONDS = 1.0  # the same for noted events
NOTE_AT_ONCE = 500  # noted events stored in one commit, which must end before a connection is cut
DROP_AT_ONCE = 500  # rows deleted in one commit, so that other changes can run in between

JUST_ENDED = "Another request with this key just finished. Retry to get its response."

log = structlog.get_logger()


class Committing:
    def __init__(self, transactions: Transactions, host: str, membership: Callable[[], Membership]) -> None:
        self._transactions = transactions
        self._membership = membership
        self.host = host
        self._own = OwnSessions(membership)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[object]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._touched: dict[str, int] = {}  # activity that is not written yet
        self._touching: dict[str, int] = {}  # activity that is being written
        self._noted: list[Noted] = []
        self._flushing = asyncio.Lock()
        self._flush_at: asyncio.TimerHandle | None = None

    def _has_stored(self) -> None:
        """Called after each commit."""

    async def _change[T](self, work: Work[T], told: Sequence[AccountEvent] = ()) -> T:
        """Commits the work together with the events `told`, as a member of the fleet. A cancelled caller only stops
        waiting. Raises MayNotAct."""
        rows, me = rows_of(told), self._me()

        async def whole(transaction: Transaction) -> T:
            await require_member(transaction, me)
            value = await work(transaction)
            await transaction.send_many("add_event", rows)
            return value

        return await self._shielded(self._commit(whole, is_told=bool(rows)))

    async def _change_at_once(self, name: str, values: Values, told: Sequence[AccountEvent] = ()) -> None:
        """The same for one statement that is a whole transaction: it stores the events, asks whether this host may act
        as a member, and marks itself. Raises MayNotAct."""
        rows, me = rows_of(told), self._me()
        own = {"host": me.host, "incarnation": me.incarnation, "events": json.dumps(rows)}

        async def whole() -> None:
            if rows:
                await self._store_noted()
            await self._transactions.change_at_once(name, {**values, **own})
            if rows:
                self._has_stored()

        await self._shielded(whole())

    async def _change_own[T](
        self, session_id: str, work: Coroutine[Any, Any, T], after: Callable[[T], Session | None]
    ) -> T:
        """Does the work, which changes this session, to its end. `after`: what the row has then, by what the work has
        returned. None: it is not known, or this host does not have the session."""

        async def whole() -> T:
            with self._own.changing(session_id) as change:
                value = await work
                change.after = after(value)
                return value

        return await self._shielded(whole())

    async def _change_and_answer[T](self, answer: Answer | None, work: Work[T], told: Sequence[AccountEvent] = ()) -> T:
        """The same, together with the answer if any. Raises IdempotencyInProgress if the answer's key has one."""
        stored = None if answer is None else await pack_aside(answer)

        async def both(transaction: Transaction) -> T:
            value = await work(transaction)
            if stored is not None and not await add_answer(transaction, stored):
                raise IdempotencyInProgress(JUST_ENDED)
            return value

        return await self._change(both, told)

    async def _change_if_done(self, work: Work[bool], told: Sequence[AccountEvent]) -> bool:
        """Commits the work, together with the events `told` if it returns True."""
        rows, me = rows_of(told), self._me()

        async def whole(transaction: Transaction) -> bool:
            await require_member(transaction, me)
            done = await work(transaction)
            await transaction.send_many("add_event", rows if done else ())
            return done

        return await self._shielded(self._commit(whole, is_told=bool(rows)))

    def _me(self) -> Membership:
        """As which member this host begins a change. Raises MayNotAct."""
        if self._closing is not None:
            raise Unavailable("The server is stopping.")
        try:
            return self._membership()
        except Fenced:
            raise MayNotAct from None

    async def _run(self, name: str, /, **values: object) -> int:
        """Commits one statement. Returns how many rows it has changed."""
        return await self._change(lambda transaction: transaction.run(name, **values))

    async def _drop(self, some: Callable[[], Awaitable[int]]) -> int:
        """Calls `some`, which drops at most DROP_AT_ONCE rows, until it drops fewer. Returns how many it dropped."""
        total, dropped = 0, DROP_AT_ONCE
        while dropped == DROP_AT_ONCE:
            dropped = await some()
            total += dropped
        return total

    async def _commit[T](self, work: Work[T], *, is_told: bool) -> T:
        if is_told:
            await self._store_noted()
        value = await self._transactions.change(work)
        self._has_stored()
        return value

    async def _store_noted(self) -> None:
        """What was noted before a change comes before its events."""
        if self._noted or self._flushing.locked():
            await self._flush()

    async def _shielded[T](self, work: Coroutine[Any, Any, T]) -> T:
        # it begins at once, so that only what was noted before comes before it
        task = asyncio.Task(work, loop=self._loop, name="store-change", eager_start=True)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[object]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left

    # what is noted

    def _note_activity(self, session_id: str, now: int) -> None:
        self._touched[session_id] = max(now, self._touched.get(session_id, 0))
        self._flush_later(TOUCH_SECONDS)

    async def _settle_activity(self, session_id: str) -> None:
        """Stores what was noted for this id. A session that is added afterwards does not get it."""
        if self._activity(session_id):
            await self._flush()

    def _note_rows(self, rows: Sequence[Values], stored: Callable[[], None] | None) -> None:
        self._noted = newest([*self._noted, Noted(rows, stored)])
        self._flush_later(NOTED_SECONDS)

    def _activity(self, session_id: str) -> int:
        """The last activity that the database may not have yet. 0: it has all."""
        return max(self._touched.get(session_id, 0), self._touching.get(session_id, 0))

    async def _end_changes(self) -> None:
        """Waits for changes that are under way, and stores the last activity and the last events."""
        if self._flush_at is not None:
            self._flush_at.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        try:
            await self._flush()
        except Unavailable as failure:
            log.warning(
                "store_lost_activity",
                sessions=len(self._touched),
                events=sum(len(one.rows) for one in self._noted),
                why=str(failure),
            )

    def _flush_later(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._closing is not None or (self._flush_at is not None and self._flush_at.when() <= due):
            return
        if self._flush_at is not None:
            self._flush_at.cancel()
        self._flush_at = self._loop.call_at(due, self._start_flush)

    def _start_flush(self) -> None:
        self._flush_at = None
        task = self._loop.create_task(self._flush(), name="store-flush")
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def _flush(self) -> None:
        """Stores what was noted until now. Raises Unavailable, and keeps the rest for the next time."""
        async with self._flushing:
            last = self._noted[-1] if self._noted else None
            await self._flush_some()
            while any(one is last for one in self._noted):
                await self._flush_some()

    async def _flush_some(self) -> None:
        """Stores the activity, and the oldest events."""
        noted, self._noted = _first(self._noted)
        self._touching, self._touched = self._touched, {}
        if not noted and not self._touching:
            return
        ids, times = list(self._touching), list(self._touching.values())

        async def work(transaction: Transaction) -> None:
            await transaction.send("later_on_disk")
            await transaction.send("touch_sessions", ids=ids, times=times, me=self.host)
            await transaction.send_many("note_event", [row for one in noted for row in one.rows])

        try:
            await self._transactions.change(work)
        except BaseException:
            self._touched = self._touching | self._touched
            self._noted = newest(noted + self._noted)
            self._flush_later(TOUCH_SECONDS)
            raise
        else:
            self._own.has_touched(self._touching)
        finally:
            self._touching = {}
        if any(one.rows for one in noted):
            self._has_stored()
        if calls := [one.stored for one in noted if one.stored is not None]:
            await asyncio.to_thread(call_each, calls)


def _first(noted: Sequence[Noted]) -> tuple[list[Noted], list[Noted]]:
    """As many as one commit takes, at least one, and the others."""
    count = 0
    for place, one in enumerate(noted):
        count += len(one.rows)
        if place and count > NOTE_AT_ONCE:
            return list(noted[:place]), list(noted[place:])
    return list(noted), []


async def require_member(transaction: Transaction, me: Membership) -> None:
    """What follows is stored only while the host is this member: else a later statement raises MayNotAct."""
    await transaction.send("require_member", host=me.host, incarnation=me.incarnation)
    transaction.me = me


def rows_of(events: Sequence[AccountEvent]) -> list[Values]:
    """`sole`: the one webhook that gets a test. Raises TypeError for data that is not JSON."""
    tests = (event.data.get("webhookId") if event.type is EventType.WEBHOOK_TEST else None for event in events)
    return [event_row(event) | {"sole": sole} for event, sole in zip(events, tests, strict=True)]


async def add_answer(transaction: Transaction, stored: PackedAnswer) -> bool:
    """Returns False and changes nothing if this account and key already have an answer."""
    assert transaction.me is not None
    mine = {"host": transaction.me.host, "incarnation": transaction.me.incarnation}
    await transaction.send("end_key", account=stored.account, key=stored.key, **mine)
    return await transaction.run("add_answer", **answer_values(stored)) == 1


def answer_values(stored: PackedAnswer) -> Values:
    return {
        **{"account": stored.account, "key": stored.key, "fingerprint": stored.fingerprint, "status": stored.status},
        **{"created_at": stored.created_at, "headers": stored.headers, "packed": stored.packed, "body": stored.body},
    }
