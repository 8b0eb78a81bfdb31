"""How many files and processes a session has, as last seen while it was awake."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from buntime import errors
from buntime.daemon.tasks import begun
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
        """Looks inside an active session. Returns what was last seen of one that sleeps, or that does not answer within
        `OBSERVE_SECONDS`. Not activity."""
        until = _deadline()
        ((sandbox, processes),) = await self._running([session], until)
        if sandbox is not None:
            await self._look(session, sandbox, until)
        return self._shown(session, processes)

    async def observe_all(self, sessions: Sequence[Session]) -> Sequence[Observed]:
        """The same for each, within `OBSERVE_SECONDS` for all together. Files are counted only in sessions where they
        may have changed since the last look."""
        until = _deadline()
        running = await self._running(sessions, until)
        now = int(self._clock())
        stale = [
            (session, sandbox)
            for session, (sandbox, processes) in zip(sessions, running, strict=True)
            if sandbox is not None and self._is_stale(session, processes or 0, now)
        ]
        await self._look_at(stale, until)
        return [self._shown(session, count) for session, (_, count) in zip(sessions, running, strict=True)]

    def last_of(self, session: Session, sandbox: Sandbox | None) -> Observed:
        """What was last seen of an active session, with the processes that it has now. Asks no guest. `sandbox`: the
        session's, if it runs."""
        return self._shown(session, sandbox.count_processes() if sandbox else 0)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._looks.pop(session_id, None)

    async def _running(self, sessions: Sequence[Session], until: float) -> Sequence[tuple[Sandbox | None, int | None]]:
        """The sandbox of each active session, and how many processes it has. None processes: that is not known yet.

        What an earlier server left has to be taken over first. That goes on when nobody waits for it any more.
        """
        asked = [begun(self._sandbox(session), f"sandbox of {session.id}") for session in sessions]
        if waiting := [task for task in asked if not task.done()]:
            try:
                _, late = await asyncio.wait(waiting, timeout=max(until - _now(), 0))
            finally:
                for task in waiting:
                    task.cancel()  # where it has not ended
            if late:
                log.info("observe_failed", sessions=len(late), reason="not taken over yet")
        found = [(task.result() if task.done() else None, task.done()) for task in asked]
        return [(sandbox, (sandbox.count_processes() if sandbox else 0) if known else None) for sandbox, known in found]

    async def _sandbox(self, session: Session) -> Sandbox | None:
        return await self._sandboxes.get(session.sandbox) if session.state is State.ACTIVE else None

    async def _look_at(self, stale: Sequence[tuple[Session, Sandbox]], until: float) -> None:
        turns = asyncio.Semaphore(AT_ONCE)

        async def look(session: Session, sandbox: Sandbox) -> None:
            async with turns:
                await self._look(session, sandbox, until)

        try:
            async with asyncio.timeout_at(until), asyncio.TaskGroup() as looking:
                for session, sandbox in stale:
                    looking.create_task(look(session, sandbox), name=f"count of {session.id}")
        except TimeoutError:
            log.info("observe_failed", sessions=len(stale), reason="too slow together")

    async def _look(self, session: Session, sandbox: Sandbox, until: float) -> None:
        at = int(self._clock())  # before the look: what changes meanwhile is later
        try:
            async with asyncio.timeout_at(until):
                self._looks[session.id] = _Look(await sandbox.observe(), at)
        except (TimeoutError, SandboxGone, errors.BuntimeError) as failed:  # nothing depends on these numbers
            log.info("observe_failed", session=session.id, reason=str(failed) or repr(failed))

    def _is_stale(self, session: Session, processes: int, now: int) -> bool:
        """Files change by requests, which are activity, and by processes."""
        look = self._looks.get(session.id)
        if look is None or look.at <= session.last_active:
            return True
        return (processes > 0 or look.seen.processes > 0) and now - look.at >= RECOUNT_SECONDS

    def _shown(self, session: Session, processes: int | None) -> Observed:
        """`processes`: None if it is not known."""
        if session.state is not State.ACTIVE:
            return Observed(session.files, session.processes)
        look = self._looks.get(session.id)
        seen = look.seen if look else Observed(session.files, session.processes)
        return Observed(seen.files, seen.processes if processes is None else processes)


def _now() -> float:
    """On the loop's clock."""
    return asyncio.get_running_loop().time()


def _deadline() -> float:
    return _now() + OBSERVE_SECONDS
