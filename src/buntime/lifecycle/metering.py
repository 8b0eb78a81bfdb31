"""Reads what sessions use, and notes it in the store from time to time.

A change of state reads the kernel's counters itself, and stores the reading together with the change. Between two
changes, sessions are noted when `usage.NOTE_SECONDS` have passed, many in one batch. So the memory of a session is
sampled once a minute while it is awake, and a server that is killed loses at most what was used since the last note.

A session is not noted any more once its sandbox has ended without us: its window then ends at the last note before.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError
from buntime.ids import new_id
from buntime.lifecycle.batches import Batches
from buntime.ports import Sandbox, Sandboxes, Store, Used
from buntime.session import Session, State
from buntime.usage import NOTE_SECONDS, Moment, Reading, Runs

log = structlog.get_logger()

FIRST_NOTES_SECONDS = 600  # after a start, within which every session is noted
PLACED_AT_ONCE, PLACING_PAUSE = 100, 0.005  # sessions that are new; seconds
GOLDEN = (5**0.5 - 1) / 2
NOTES_AT_ONCE = 500  # sessions in one batch; the rest is due at the next tick


class Metering:
    def __init__(self, store: Store, sandboxes: Sandboxes, tasks: Tasks, moment: Callable[[], Moment]) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._tasks = tasks
        self._moment = moment
        self._server = new_id("", 12)  # names this run of the server
        self._runs: Counter[str] = Counter()  # session → executions since the server started
        self._batches = Batches("notes of usage", NOTES_AT_ONCE, self._note_usage, tasks, moment)
        self._sessions: dict[str, Session] = {}  # as of their last change
        self._new = deque[str]()  # sessions that have no time for their first note yet
        self._placing = False
        self._place = 0.0  # of the last session that got one
        self._ended: dict[str, Session] = {}  # awake sessions whose sandbox does not run, since `take_ended`

    @property
    def at_rest(self) -> bool:
        return self._batches.at_rest and not self._new

    def ran(self, session_id: str) -> None:
        """An execution of the session begins."""
        self._runs[session_id] += 1

    def now(self, session_id: str) -> Reading:
        """A reading of the time alone. The kernel's counters keep what they have for the next one."""
        return Reading(self._moment(), runs=Runs(self._server, self._runs[session_id]))

    async def first(self, session: Session, used: Used | None) -> Reading:
        """What a new session starts with. `used`: see `ports.Claimed`."""
        if used is None:
            return await self.read(session)
        return replace(self.now(session.id), counters=used.counters, disk=used.disk)

    async def read(self, session: Session) -> Reading:
        """A reading of the session with its sandbox, if that runs."""
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
        if before is None:
            self._new.append(session.id)
        elif before.state is not session.state:
            self._put(session, NOTE_SECONDS[session.state])

    def begin_due(self) -> None:
        """Begins what is due, in the background. Its cost depends on how many are due."""
        self._place_some()
        if self._new and not self._placing:
            self._placing = True
            self._tasks.start(self._place_all(), "times of notes")
        self._batches.begin_due()

    def take_ended(self) -> Sequence[Session]:
        """Awake sessions, as of their last change, that were due since the last call and whose sandbox did not run."""
        ended, self._ended = list(self._ended.values()), {}
        return ended

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._ended.pop(session_id, None)
        self._batches.drop(session_id)
        self._sessions.pop(session_id, None)
        self._runs.pop(session_id, None)

    def _put(self, session: Session, seconds: float) -> None:
        self._batches.put(session.id, seconds, together=session.state is State.DEEP_SLEEP)

    def _place_some(self) -> None:
        """After a start, sessions are noted one after another, and soon: the next start may come before an hour."""
        for _ in range(min(PLACED_AT_ONCE, len(self._new))):
            session = self._sessions.get(self._new.popleft())
            if session is not None:
                self._put(session, min(NOTE_SECONDS[session.state], FIRST_NOTES_SECONDS) * self._next_place())

    async def _place_all(self) -> None:
        """Between what requests wait for: a start has a time to find for every session."""
        try:
            while self._new:
                await asyncio.sleep(PLACING_PAUSE)
                self._place_some()
        finally:
            self._placing = False

    def _next_place(self) -> float:
        """From 0 to 1, spread evenly over any number of sessions that come one after another."""
        self._place = (self._place + GOLDEN) % 1
        return self._place

    async def _note_usage(self, due: Sequence[str]) -> None:
        try:
            sessions = [self._sessions[session_id] for session_id in due if session_id in self._sessions]
            for session in sessions:
                self._put(session, NOTE_SECONDS[session.state])
            sessions = self._without_ended(sessions)
            readings = {session.id: self.now(session.id) for session in sessions}
            for session_id, used in (await self._sandboxes.used(sessions)).items():
                readings[session_id] = replace(readings[session_id], counters=used.counters, disk=used.disk)
            await self._store.note_usage(readings)
        except BuntimeError as failed:  # nothing is lost: the next note has it too
            log.warning("usage_not_noted", sessions=len(due), reason=failed.message)

    def _without_ended(self, sessions: Sequence[Session]) -> list[Session]:
        runs = self._sandboxes.is_running
        ended = {one.id: one for one in sessions if one.state is not State.DEEP_SLEEP and not runs(one.sandbox)}
        self._ended |= ended
        return [session for session in sessions if session.id not in ended]
