"""How many files and processes a session has, as last seen while it was awake."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from buntime import errors
from buntime.ports import Observed, Sandbox, Sandboxes, SandboxGone
from buntime.session import Session, State

log = structlog.get_logger()

OBSERVE_SECONDS = 2.0  # sessions that keep their guests from answering do not hold up a GET
AT_ONCE = 16  # guests that count for one page of sessions
RECOUNT_SECONDS = 5  # between two counts for lists while processes run, which may change files at any time


@dataclass(frozen=True, slots=True)
class _Look:
    seen: Observed
    at: int  # Unix seconds


class Observations:
    def __init__(self, sandboxes: Sandboxes, clock: Callable[[], float]) -> None:
        self._sandboxes = sandboxes
        self._clock = clock
        self._looks: dict[str, _Look] = {}

    async def observe(self, session: Session) -> Observed:
        """Looks inside an active session; for a sleeping one, returns what was last seen. Not activity."""
        sandbox = await self._running(session)
        if sandbox is not None:
            await self._look(session, sandbox)
        return self._shown(session, sandbox.count_processes() if sandbox else 0)

    async def observe_all(self, sessions: Sequence[Session]) -> Sequence[Observed]:
        """The same for each. Files are counted only in sessions where they may have changed since the last look, and
        within `OBSERVE_SECONDS` for all together."""
        running = [await self._running(session) for session in sessions]
        processes = [sandbox.count_processes() if sandbox else 0 for sandbox in running]
        now = int(self._clock())
        stale = [
            (session, sandbox)
            for session, sandbox, count in zip(sessions, running, processes, strict=True)
            if sandbox is not None and self._is_stale(session, count, now)
        ]
        await self._look_at(stale)
        return [self._shown(session, count) for session, count in zip(sessions, processes, strict=True)]

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._looks.pop(session_id, None)

    async def _running(self, session: Session) -> Sandbox | None:
        return await self._sandboxes.get(session.sandbox) if session.state is State.ACTIVE else None

    async def _look_at(self, stale: Sequence[tuple[Session, Sandbox]]) -> None:
        turns = asyncio.Semaphore(AT_ONCE)

        async def look(session: Session, sandbox: Sandbox) -> None:
            async with turns:
                await self._look(session, sandbox)

        try:
            async with asyncio.timeout(OBSERVE_SECONDS), asyncio.TaskGroup() as looking:
                for session, sandbox in stale:
                    looking.create_task(look(session, sandbox), name=f"count of {session.id}")
        except TimeoutError:
            log.info("observe_failed", sessions=len(stale), reason="too slow together")

    async def _look(self, session: Session, sandbox: Sandbox) -> None:
        at = int(self._clock())  # before the look: what changes meanwhile is later
        try:
            async with asyncio.timeout(OBSERVE_SECONDS):
                self._looks[session.id] = _Look(await sandbox.observe(), at)
        except (TimeoutError, SandboxGone, errors.BuntimeError) as failed:  # nothing depends on these numbers
            log.info("observe_failed", session=session.id, reason=str(failed) or repr(failed))

    def _is_stale(self, session: Session, processes: int, now: int) -> bool:
        """Files change by requests, which are activity, and by processes."""
        look = self._looks.get(session.id)
        if look is None or look.at <= session.last_active:
            return True
        return (processes > 0 or look.seen.processes > 0) and now - look.at >= RECOUNT_SECONDS

    def _shown(self, session: Session, processes: int) -> Observed:
        if session.state is not State.ACTIVE:
            return Observed(session.files, session.processes)
        look = self._looks.get(session.id)
        return Observed(look.seen.files if look else session.files, processes)
