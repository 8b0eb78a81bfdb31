"""How many files and processes a session has, as last seen while it was awake."""

import asyncio

import structlog

from buntime import errors
from buntime.ports import Observed, Sandboxes, SandboxGone
from buntime.session import Session, State

log = structlog.get_logger()

OBSERVE_SECONDS = 2.0  # a session that keeps its guest from answering does not hold up a GET


class Observations:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._seen: dict[str, Observed] = {}

    async def observe(self, session: Session) -> Observed:
        """Looks inside an active session; for a sleeping one, returns what was last seen. Not activity."""
        sandbox = await self._sandboxes.get(session.sandbox) if session.state is State.ACTIVE else None
        if sandbox is not None:
            try:
                async with asyncio.timeout(OBSERVE_SECONDS):
                    self._seen[session.id] = await sandbox.observe()
            except (TimeoutError, SandboxGone, errors.BuntimeError) as failed:  # nothing depends on these numbers
                log.info("observe_failed", session=session.id, reason=str(failed) or repr(failed))
        return self.last_seen(session)

    def last_seen(self, session: Session) -> Observed:
        return self._seen.get(session.id) or Observed(session.files, session.processes)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._seen.pop(session_id, None)
