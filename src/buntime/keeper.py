"""The one loop that makes the world match the store.

Deadlines are columns compared with the clock, so one that passed while no server ran takes effect
at the next start, a few at a time.
"""

import asyncio
from collections.abc import Callable

import structlog

from buntime.account import AccountStatus
from buntime.control_plane import ControlPlane
from buntime.errors import BuntimeError, SessionNotFound
from buntime.idempotency import KEPT_SECONDS
from buntime.lifecycle import Step, next_step
from buntime.ports import Store
from buntime.session import Session

log = structlog.get_logger()

TICK_SECONDS = 1.0
ENDS_A_TICK = 20  # sessions that are ended in one tick: many deadlines at once do not stall the host
HOUR = 3600


class Keeper:
    def __init__(self, store: Store, control_plane: ControlPlane, clock: Callable[[], float]) -> None:
        self._store = store
        self._control_plane = control_plane
        self._clock = clock
        self._next_tidy = 0.0

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_SECONDS)

    async def tick(self) -> None:
        now = self._clock()
        deleted = {a.id for a in await self._store.list_accounts() if a.status is AccountStatus.DELETED}
        due = [s for s in await self._store.all_sessions() if s.account in deleted or _is_due(s, now)]
        for session in due[:ENDS_A_TICK]:
            try:
                await self._control_plane.end_session(session)
            except SessionNotFound:
                continue  # a client deleted it first
            except BuntimeError as failed:
                log.warning("session_not_ended", session=session.id, reason=failed.message)
                continue  # the next tick tries again
            log.info("session_ended", session=session.id, reason="account" if session.account in deleted else "ttl")
        if now >= self._next_tidy:
            self._next_tidy = now + HOUR
            await self._tidy(int(now))

    async def _tidy(self, now: int) -> None:
        try:
            await self._store.drop_answers(now - KEPT_SECONDS)
        except BuntimeError as failed:
            log.warning("answers_not_dropped", reason=failed.message)


def _is_due(session: Session, now: float) -> bool:
    return next_step(session, now, float("inf"), float("inf")) in (Step.EXPIRE, Step.FINISH_DELETE)
