"""The one loop that makes the world match the store.

Deadlines are columns compared with the clock, so one that passed while no server ran takes effect
at the next start, a few at a time.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from buntime.account import AccountStatus
from buntime.control_plane import ControlPlane
from buntime.errors import BuntimeError, SessionNotFound
from buntime.idempotency import KEPT_SECONDS
from buntime.leases import Leases
from buntime.lifecycle import Step, next_step
from buntime.ports import Store
from buntime.session import Session, State

log = structlog.get_logger()

ENDS_A_TICK = 20  # sessions that are ended in one tick: many deadlines at once do not stall the host
SLEEPS_AT_ONCE = 4
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds."""

    tick: float = 1.0
    idle_after: float = 300.0  # without activity; infinity: never
    deep_sleep_after: float = 1800.0


class Keeper:
    def __init__(
        self, store: Store, control_plane: ControlPlane, leases: Leases, clock: Callable[[], float], pace: Pace
    ) -> None:
        self._store = store
        self._control_plane = control_plane
        self._leases = leases
        self._clock = clock
        self._pace = pace
        self._next_tidy = 0.0

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.tick()
            await asyncio.sleep(self._pace.tick)

    async def tick(self) -> None:
        now = self._clock()
        accounts = await self._store.list_accounts()
        deleted = {a.id for a in accounts if a.status is AccountStatus.DELETED}
        suspended = {a.id for a in accounts if a.status is AccountStatus.SUSPENDED}
        steps = [(s, self._next_step(s, now, deleted, suspended)) for s in await self._store.all_sessions()]
        ends = [session for session, step in steps if step in (Step.EXPIRE, Step.FINISH_DELETE)]
        for session in ends[:ENDS_A_TICK]:
            await self._end(session)
        places = asyncio.Semaphore(SLEEPS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for session, step in steps:
                if step in (Step.SUSPEND, Step.ARCHIVE):
                    quiet = self._quiet_since(session, step, now, suspended)
                    group.create_task(self._sleep(session, step, quiet, places), name=f"sleep of {session.id}")
        if now >= self._next_tidy:
            self._next_tidy = now + HOUR
            await self._tidy(int(now))

    def _next_step(self, session: Session, now: float, deleted: set[str], suspended: set[str]) -> Step:
        if session.account in deleted:
            return Step.EXPIRE
        if session.account in suspended and session.state in (State.ACTIVE, State.IDLE):
            return Step.ARCHIVE
        return next_step(session, now, self._pace.idle_after, self._pace.deep_sleep_after)

    async def _end(self, session: Session) -> None:
        try:
            await self._control_plane.end_session(session)
        except SessionNotFound:
            return  # a client deleted it first
        except BuntimeError as failed:
            log.warning("session_not_ended", session=session.id, reason=failed.message)
            return  # the next tick tries again
        except Exception:  # the boundary of a session: what goes wrong with one must not end the keeping of all
            log.exception("session_not_ended", session=session.id)
            return
        log.info("session_ended", session=session.id)

    def _quiet_since(self, session: Session, step: Step, now: float, suspended: set[str]) -> float | None:
        """None: however active it was."""
        if session.account in suspended:
            return None
        return now - (self._pace.idle_after if step is Step.SUSPEND else self._pace.deep_sleep_after)

    async def _sleep(self, session: Session, step: Step, quiet: float | None, places: asyncio.Semaphore) -> None:
        down = self._leases.suspend if step is Step.SUSPEND else self._leases.deep_sleep
        async with places:
            try:
                done = await down(session.id, quiet)
            except BuntimeError as failed:
                log.warning("session_not_put_to_sleep", session=session.id, reason=failed.message)
                return
            except Exception:  # as above
                log.exception("session_not_put_to_sleep", session=session.id)
                return
        if done:
            log.info("session_put_to_sleep", session=session.id, was=session.state.value)

    async def _tidy(self, now: int) -> None:
        try:
            await self._store.drop_answers(now - KEPT_SECONDS)
        except BuntimeError as failed:
            log.warning("answers_not_dropped", reason=failed.message)
