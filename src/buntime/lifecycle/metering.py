"""Reads what sessions use, and notes it in the store from time to time.

A change of state reads the kernel's counters itself, and stores the reading together with the change. Between two
changes, sessions are noted when `usage.NOTE_SECONDS` have passed, many in one batch. So the memory of a session is
sampled once a minute while it is awake, and a server that is killed loses at most what was used since the last note.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError
from buntime.ids import new_id
from buntime.lifecycle.batches import Batches
from buntime.ports import Sandbox, Sandboxes, Store
from buntime.session import Session, State
from buntime.usage import NOTE_SECONDS, Moment, Reading, Runs

log = structlog.get_logger()

FIRST_NOTES_SECONDS = 600  # after a start, within which every session is noted
NOTES_AT_ONCE = 500  # sessions in one batch; the rest is due at the next tick


class Metering:
    def __init__(self, store: Store, sandboxes: Sandboxes, tasks: Tasks, moment: Callable[[], Moment]) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._moment = moment
        self._server = new_id("", 12)  # names this run of the server
        self._runs: Counter[str] = Counter()  # session → executions since the server started
        self._batches = Batches("notes of usage", NOTES_AT_ONCE, self._note_usage, tasks, moment)
        self._sessions: dict[str, Session] = {}  # as of their last change

    @property
    def at_rest(self) -> bool:
        return self._batches.at_rest

    def ran(self, session_id: str) -> None:
        """An execution of the session begins."""
        self._runs[session_id] += 1

    def now(self, session_id: str) -> Reading:
        """A reading of the time alone. The kernel's counters keep what they have for the next one."""
        return Reading(self._moment(), runs=Runs(self._server, self._runs[session_id]))

    async def read(self, session: Session) -> Reading:
        """A reading of the session with its sandbox, if that runs. A new session starts with this."""
        reading = self.now(session.id)  # before the counters: what they count meanwhile is later
        used = (await self._sandboxes.used([session])).get(session.id)
        return replace(reading, counters=used.counters, disk=used.disk) if used else reading

    async def read_next(self, session: Session, sandbox: Sandbox) -> Reading:
        """A reading of a session that another sandbox serves from now on."""
        reading = await self.read(replace(session, sandbox=sandbox.id))
        return replace(reading, counters=None, next=reading.counters)

    def note(self, session: Session) -> None:
        """The stored session is new, or has changed."""
        if session.state is State.DELETING:
            self._batches.drop(session.id)
            self._sessions.pop(session.id, None)
            return
        before = self._sessions.get(session.id)
        self._sessions[session.id] = session
        if before is None or before.state is not session.state:
            every = NOTE_SECONDS[session.state]
            # after a start, sessions are noted one after another, and soon: the next start may come before an hour
            self._batches.put(session.id, every if before else min(every, FIRST_NOTES_SECONDS) * _place(session.id))

    def begin_due(self) -> None:
        """Begins what is due, in the background. Its cost depends on how many are due."""
        self._batches.begin_due()

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._batches.drop(session_id)
        self._sessions.pop(session_id, None)
        self._runs.pop(session_id, None)

    async def _note_usage(self, due: Sequence[str]) -> None:
        try:
            sessions = [self._sessions[session_id] for session_id in due if session_id in self._sessions]
            for session in sessions:
                self._batches.put(session.id, NOTE_SECONDS[session.state])
            readings = {session.id: self.now(session.id) for session in sessions}
            for session_id, used in (await self._sandboxes.used(sessions)).items():
                readings[session_id] = replace(readings[session_id], counters=used.counters, disk=used.disk)
            await self._store.note_usage(readings)
        except BuntimeError as failed:  # nothing is lost: the next note has it too
            log.warning("usage_not_noted", sessions=len(due), reason=failed.message)


def _place(session_id: str) -> float:
    """From 0 to 1, and different for most sessions."""
    return crc32(session_id.encode()) / (1 << 32)
