"""The one loop that makes the world match the store.

Deadlines are columns that are compared with the clock. So a deadline that passed while no server ran takes effect at
the next start, a few at a time. The cost of a tick depends on what is due and what changed, not on the number of
sessions.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from buntime.account import Account, AccountStatus
from buntime.daemon.tasks import Tasks
from buntime.daemon.turns import Turns
from buntime.errors import BuntimeError, MayNotAct, SessionNotFound
from buntime.event import KEPT_SECONDS, MOST_KEPT
from buntime.lifecycle.assembly import Lifecycle
from buntime.lifecycle.deadlines import Deadlines
from buntime.lifecycle.decisions import Asleep, Step, Waits, next_due, next_step, waits_of
from buntime.ports import ANSWER_SECONDS, Owners, Sandboxes, Store
from buntime.session import DEFAULT_SLEEP_POLICY, Session, State
from buntime.usage import KEPT_DAYS

log = structlog.get_logger()

ENDS_A_TICK = 20  # sessions that end in one tick, so that many deadlines at once do not stall the host
STEPS_A_TICK = 200
NOTED_AT_ONCE = 500  # changed sessions in one turn of the loop
AT_ONCE = 4  # steps of each kind, but for suspending. That is never urgent: see `Turns`, which none holds for long
SUSPEND_PAUSE_SECONDS = 0.005  # for requests, between two
TOUCHED_SECONDS = 1.0  # between two looks at open connections
LONGEST_WAIT = 600.0  # before a step that failed is tried again
JUMP_SECONDS = 5.0  # a clock that gains or loses this much against monotonic time was set
HOLD_SECONDS = 60.0  # without expiries after the clock was set forward: it may be set back soon
HOUR, DAY = 3600, 86400

_SLEEP = (Step.SUSPEND, Step.DEEP_SLEEP)


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds."""

    tick: float = 1.0
    idle_after: float = 300.0  # of sessions that do not say it themselves: see `decisions.Waits`
    deep_sleep_after: float = 1800.0
    keeps: bool = False  # sessions stay suspended instead of going to deep sleep


class Keeper:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        lifecycle: Lifecycle,
        owners: Owners,
        tasks: Tasks,
        clock: Callable[[], float],
        pace: Pace,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._lifecycle = lifecycle
        self._owners = owners
        self._tasks = tasks
        self._clock = clock
        self._steady = steady
        self._pace = pace
        self._usual = Waits(pace.idle_after, pace.deep_sleep_after)
        self._deadlines = Deadlines()
        self._changed: dict[str, Session] = {}  # that no tick has heeded yet
        self._busy: set[str] = set()  # sessions with a step under way
        self._failures: dict[str, int] = {}  # in a row
        self._kept: dict[str, int] = {}  # session that stays suspended → its last activity
        self._places = {step: asyncio.Semaphore(AT_ONCE) for step in Step if step is not Step.SUSPEND}
        self._looks, self._suspensions = Turns(places=1), Turns(places=1)  # a look waits for a guest
        self._ahead = clock() - steady()
        self._hold_until = 0.0
        self._not_woken: set[str] = set()
        self._relieving = False
        self._next_tidy = 0.0
        self._emptied: set[str] = set()  # deleted accounts whose snapshots and images are gone
        self._quiet: dict[str, AccountStatus] = {}  # accounts with nothing to end until one of their sessions changes

    @property
    def at_rest(self) -> bool:
        """Whether no step is under way."""
        own = self._lifecycle
        parts = (own.checkpoints, own.metering, own.measuring, own.working)
        return not self._busy and not self._relieving and all(part.at_rest for part in parts)

    async def run(self) -> None:
        """Ticks for ever, while this host may act. What a tick could not do because the store was away, a later one
        does."""
        while True:
            try:
                if self._owners.may_act():
                    await self.tick()
            except BuntimeError as failed:
                log.warning("tick_failed", reason=failed.message)
            await asyncio.sleep(self._pace.tick)

    async def watch_connections(self) -> None:
        """For ever: counts what clients send on open connections as activity, and wakes their sessions."""
        while True:
            again, self._not_woken = self._not_woken, set()
            for session_id in {*await self._sandboxes.touched(), *again} if self._owners.may_act() else ():
                self._tasks.start(self._touched(session_id), f"touched {session_id}")
            await asyncio.sleep(TOUCHED_SECONDS)

    async def tick(self) -> None:
        """Begins what is due. The work goes on in the background."""
        now = self._clock()
        await self._heed_the_clock(now)
        self._changed |= {session.id: session for session in await self._store.changed_sessions()}
        for number, session in enumerate(list(self._changed.values())):
            if not number % NOTED_AT_ONCE:
                await asyncio.sleep(0)
            waits = await self._waits(session)
            self._deadlines.put(session.id, self._due(session, waits))
            await self._lifecycle.checkpoints.note(session)
            self._lifecycle.metering.note(session)
            self._lifecycle.measuring.note(session)
            self._lifecycle.working.note(session, waits)
            self._quiet.pop(session.account, None)
            del self._changed[session.id]
        await self._heed_accounts(now)
        await self._begin_due(now)
        self._lifecycle.checkpoints.begin_due(now)
        self._lifecycle.metering.begin_due()
        for session in self._lifecycle.metering.take_ended():
            if session.id not in self._busy:
                self._begin(session, Step.SETTLE, now)
        self._lifecycle.measuring.begin_due()
        self._lifecycle.working.begin_due()
        if not self._relieving:
            self._relieving = True
            self._tasks.start(self._relieve(), "relief")
        is_due = now >= self._next_tidy or now < self._next_tidy - HOUR
        if is_due and self._steady() >= self._hold_until:
            self._next_tidy = now + HOUR
            self._tasks.start(self._tidy(int(now)), "tidying")

    async def _begin_due(self, now: float) -> None:
        ends, taken = 0, list(self._deadlines.take(now, STEPS_A_TICK))
        for place, session_id in enumerate(taken):
            try:
                found = await self._store.get_session(session_id)
                waits = self._usual if found is None else await self._waits(found)
                if not self._owners.may_act():
                    raise MayNotAct  # so nobody knows whose the session is
            except BuntimeError:
                for left in taken[place:]:
                    self._deadlines.put(left, now)
                raise
            if found is None or not self._owners.is_mine(found):
                self._failures.pop(session_id, None)
                self._kept.pop(session_id, None)
                continue
            if session_id in self._busy:
                continue
            session = found
            step = next_step(session, now, waits.idle_after, waits.deep_sleep_after, self._asleep(session))
            ends += step in (Step.EXPIRE, Step.FINISH_DELETE)
            if step is Step.NOTHING:  # it was active meanwhile
                self._deadlines.put(session_id, max(self._due(session, waits), now + self._pace.tick))
            elif step is Step.EXPIRE and self._steady() < self._hold_until:
                self._deadlines.put(session_id, now + self._pace.tick)
            elif step in (Step.EXPIRE, Step.FINISH_DELETE) and ends > ENDS_A_TICK:
                self._deadlines.put(session_id, now)
            else:
                self._begin(session, step, now, waits)

    async def _waits(self, session: Session) -> Waits:
        if session.sleep_policy == DEFAULT_SLEEP_POLICY:
            return self._usual
        return waits_of(session.sleep_policy, await self._lifecycle.plans.of(session.account), self._usual)

    def _due(self, session: Session, waits: Waits) -> float:
        return next_due(session, waits.idle_after, waits.deep_sleep_after, self._asleep(session))

    def _asleep(self, session: Session) -> Asleep:
        if not self._pace.keeps:
            return Asleep.ENDS
        return Asleep.KEPT if self._kept.get(session.id) == session.last_active else Asleep.STAYS

    async def _heed_the_clock(self, now: float) -> None:
        """A clock that was set forward puts no session to sleep early, and ends none at once."""
        ahead = now - self._steady()
        jump = ahead - self._ahead
        if abs(jump) < JUMP_SECONDS:
            self._ahead = ahead
            return
        log.warning("clock_was_set", seconds=round(jump))
        if jump > 0:
            self._hold_until = self._steady() + HOLD_SECONDS
        for session in await self._store.all_sessions():
            if jump > 0 and session.state in (State.ACTIVE, State.IDLE):
                await self._store.touch_session(session.id, int(now))
            due = self._due(session, await self._waits(session))
            self._deadlines.put(session.id, due)  # its deadline may be by the old clock
            await self._lifecycle.checkpoints.note(session)
        self._ahead = ahead  # not before: if the store is away, the next tick does it

    async def _heed_accounts(self, now: float) -> None:
        inactive = await self._store.inactive_accounts()
        ids = {account.id for account in inactive}
        self._quiet = {account: status for account, status in self._quiet.items() if account in ids}
        for account in inactive:
            if self._quiet.get(account.id) is account.status:
                continue
            if account.status is AccountStatus.DELETED and account.id not in self._emptied:
                await self._empty(account.id)
            is_quiet = account.status is not AccountStatus.DELETED or account.id in self._emptied
            for session in await self._store.account_sessions(account.id):
                if not self._owners.is_mine(session):
                    continue
                step = _step_of(account, session)
                is_quiet = is_quiet and step is Step.NOTHING and session.id not in self._busy
                if step is not Step.NOTHING and session.id not in self._busy:
                    self._begin(session, step, now)
            if is_quiet:
                self._quiet[account.id] = account.status

    async def _empty(self, account_id: str) -> None:
        """Drops the snapshots and images of a deleted account. The next tick tries again if the store cannot."""
        try:
            await self._store.drop_kept_of(account_id)
        except BuntimeError as failed:
            log.warning("account_not_emptied", account=account_id, reason=failed.message)
            return
        self._emptied.add(account_id)
        self._lifecycle.layers.look_soon()

    def _begin(self, session: Session, step: Step, now: float, waits: Waits | None = None) -> None:
        """Without `waits`: even if the session is active."""
        self._busy.add(session.id)
        self._tasks.start(self._take_step(session, step, now, waits), f"{step.name.lower()} {session.id}")

    async def _take_step(self, session: Session, step: Step, now: float, waits: Waits | None) -> None:
        done, wait = False, 0.0
        try:
            if waits is not None and step in _SLEEP and self._lifecycle.transitions.is_used(session.id):
                return  # without a place, which others wait for
            if step in _SLEEP:
                async with self._looks.one():
                    await self._lifecycle.transitions.look(session.id)
            async with self._place(step):
                if step is Step.SUSPEND and waits is not None and waits.awaits_processes:
                    wait = await self._lifecycle.working.rest_after(session)
                done = wait > 0 or await self._act(session, step, _quiet_since(step, now, waits))
                if step is Step.SUSPEND:
                    await asyncio.sleep(SUSPEND_PAUSE_SECONDS)
        except SessionNotFound:
            done = True  # a client deleted it first
        except BuntimeError as failed:
            log.warning("step_failed", step=step.name.lower(), session=session.id, reason=failed.message)
        except Exception:  # the boundary of a session: a failure of one must not stop the keeper
            log.exception("step_failed", step=step.name.lower(), session=session.id)
        finally:
            self._busy.discard(session.id)
            self._look_again(session.id, done=done, wait=wait)

    def _place(self, step: Step) -> AbstractAsyncContextManager[None]:
        return self._suspensions.one() if step is Step.SUSPEND else self._places[step]

    async def _act(self, session: Session, step: Step, quiet_since: float | None) -> bool:
        """Whether the step is done."""
        match step:
            case Step.SUSPEND:
                done = await self._lifecycle.transitions.suspend(session.id, quiet_since, looked=True)
            case Step.DEEP_SLEEP:
                done = await self._lifecycle.transitions.deep_sleep(session.id, quiet_since, looked=True)
            case Step.KEEP:
                done = await self._lifecycle.checkpoints.archive(session.id)
                if done:
                    self._kept[session.id] = session.last_active
            case Step.SETTLE:
                return await self._lifecycle.transitions.settle_ended(session.id)
            case Step.ARCHIVE:
                return await self._lifecycle.archiving.archive(session.id)
            case Step.FINISH_DELETE:
                return await self._lifecycle.endings.finish(session)
            case _:
                await self._lifecycle.endings.end(session)
                done = True
        if done:
            log.info("step_taken", step=step.name.lower(), session=session.id, was=session.state.value)
        return done

    def _look_again(self, session_id: str, *, done: bool, wait: float = 0.0) -> None:
        """Looks again at the next tick, or after `wait` seconds. Each failure in a row doubles the wait."""
        failures = 0 if done else self._failures.get(session_id, 0) + 1
        if failures:
            self._failures[session_id] = failures
        else:
            self._failures.pop(session_id, None)
        wait = wait if not failures else min(LONGEST_WAIT, self._pace.tick * 2 ** min(failures - 1, 20))
        self._deadlines.put(session_id, self._clock() + wait)

    async def _touched(self, session_id: str) -> None:
        try:
            await self._lifecycle.leases.touched(session_id)
        except SessionNotFound:
            return
        except BuntimeError as failed:
            log.warning("not_woken", session=session_id, reason=failed.message)
            self._not_woken.add(session_id)  # `touched` reports it only once, so try again

    async def _relieve(self) -> None:
        try:
            await self._lifecycle.relief.relieve()
        except BuntimeError as failed:
            log.warning("not_relieved", reason=failed.message)
        finally:
            self._relieving = False

    async def _tidy(self, now: int) -> None:
        if not self._owners.has_duty():
            return
        try:
            await self._store.drop_answers(now - ANSWER_SECONDS)
            await self._store.drop_preview_tokens(now)
            await self._drop_old(now)
        except BuntimeError as failed:
            log.warning("not_tidied", reason=failed.message)

    async def _drop_old(self, now: int) -> None:
        """What is kept counts back from the newest record where that is older than now: a wrong clock drops nothing."""
        ended, happened = await self._store.newest_window_end(), await self._store.newest_event_time()
        if ended is not None:
            await self._store.drop_usage(min(now, ended // 1000) // DAY - KEPT_DAYS)
        await self._store.drop_events(min(now, happened or now) - KEPT_SECONDS, MOST_KEPT)
        await self._store.drop_removed_webhooks()


def _step_of(account: Account, session: Session) -> Step:
    """What ends a session of an account that is not active."""
    if account.status is AccountStatus.DELETED and session.state is not State.DELETING:
        return Step.EXPIRE
    return Step.DEEP_SLEEP if session.state in (State.ACTIVE, State.IDLE) else Step.NOTHING


def _quiet_since(step: Step, now: float, waits: Waits | None) -> float | None:
    """A session that was active later than this (Unix seconds) stays as it is. None: whatever it does."""
    if waits is None:
        return None
    return now - (waits.idle_after if step is Step.SUSPEND else waits.deep_sleep_after)
