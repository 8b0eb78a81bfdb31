"""Measures active sessions every `measurement.INTERVAL` seconds, and keeps that as their history.

A session that sleeps does nothing, so nothing is read or written then. Each session has a place of its own within the
interval, so that many do not come at once. The kernel is read, and files are written, in threads of their own.

What a session uses in the second before its first reading, or between its last reading and a deep sleep, is in no
measurement. `metering` counts that too.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError
from buntime.lifecycle.batches import Batches
from buntime.measurement import INTERVAL, Counted, Measurement, measured
from buntime.ports import History, Sandboxes
from buntime.session import Session, State
from buntime.usage import Moment

log = structlog.get_logger()

AT_ONCE = 500  # sessions in one batch; the rest is due at the next tick
INTERVAL_MS = 1000 * INTERVAL
SPREAD_MS = 8000  # of the interval: a tick that is late must not end up in the next one
WARNING_MS = 60_000  # between two warnings
SHORTEST_MS = 2000  # between two measurements, but for the last one before a sleep


@dataclass(frozen=True, slots=True)
class _Reading:
    moment: Moment
    counted: Counted


class Measuring:
    def __init__(self, history: History, sandboxes: Sandboxes, tasks: Tasks, moment: Callable[[], Moment]) -> None:
        self._history = history
        self._sandboxes = sandboxes
        self._moment = moment
        self._batches = Batches("measurements", AT_ONCE, self._measure, tasks, moment)
        self._sessions: dict[str, Session] = {}  # that are measured, as of their last change
        self._readings: dict[str, _Reading] = {}  # the last one of each
        self._latest: dict[str, Measurement] = {}
        self._turn = asyncio.Lock()
        self._next_warning = 0  # on the steady clock

    @property
    def at_rest(self) -> bool:
        return self._batches.at_rest

    def latest(self, session_id: str) -> Measurement | None:
        """The newest measurement of an active session. None: it sleeps, or has just woken."""
        return self._latest.get(session_id)

    def note(self, session: Session) -> None:
        """The stored session is new, or has changed."""
        before = self._sessions.get(session.id)
        if session.state is State.ACTIVE:
            self._sessions[session.id] = session
            if before is None or (before.state, before.sandbox) != (session.state, session.sandbox):
                self._readings.pop(session.id, None)
                self._batches.put(session.id, 0)
        elif before is not None and session.state is State.IDLE and session.sandbox == before.sandbox:
            self._sessions[session.id] = session  # what it did until then can still be read
            self._batches.put(session.id, 0)
        elif before is not None:
            self.forget(session.id)

    def begin_due(self) -> None:
        """Begins what is due, in the background. Its cost depends on how many are due."""
        self._batches.begin_due()

    def forget(self, session_id: str) -> None:
        """The session is not measured any more. Its history stays."""
        self._batches.drop(session_id)
        self._sessions.pop(session_id, None)
        self._readings.pop(session_id, None)
        self._latest.pop(session_id, None)

    async def remove(self, session_id: str) -> None:
        """Removes the history of a session that is deleted. Raises Unavailable."""
        self.forget(session_id)
        async with self._turn:  # a batch that has begun may still write
            await self._history.remove(session_id)

    async def _measure(self, due: Sequence[str]) -> None:
        try:
            async with self._turn:
                sessions = [self._sessions[session_id] for session_id in due if session_id in self._sessions]
                moment = self._moment()
                counted = await self._sandboxes.counted(sessions)
                found = dict(self._measured(session, moment, counted.get(session.id)) for session in sessions)
                kept = {session_id: one for session_id, one in found.items() if one and session_id in self._sessions}
                for session in sessions:
                    self._look_again(session.id, moment, kept.get(session.id))
                if kept:
                    await self._history.add(kept)
        except BuntimeError as failed:  # a gap in the history harms nobody
            self._warn(len(due), failed)

    def _warn(self, sessions: int, failed: BuntimeError) -> None:
        """Not at each batch: a full disk stays full for long."""
        now = self._moment().steady
        if now >= self._next_warning:
            self._next_warning = now + WARNING_MS
            log.warning("measurements_not_kept", sessions=sessions, reason=failed.message)

    def _measured(self, session: Session, moment: Moment, counted: Counted | None) -> tuple[str, Measurement | None]:
        """Since the last reading, which is this one from now on."""
        before = self._readings.pop(session.id, None)
        if counted is None or session.id not in self._sessions:
            return session.id, None
        self._readings[session.id] = _Reading(moment, counted)
        if before is None:
            return session.id, None
        span = moment.since(before.moment)
        return session.id, measured(before.counted, counted, moment.at // 1000, span)

    def _look_again(self, session_id: str, moment: Moment, measurement: Measurement | None) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        if session.state is not State.ACTIVE:
            self.forget(session_id)
            return
        if measurement is not None:
            self._latest[session_id] = measurement
        self._batches.put(session_id, _until_place(session_id, moment.at))


def _until_place(session_id: str, at: int) -> float:
    """Seconds until the session's next place in an interval. By the clock that may be set, whose intervals the
    history has: after a clock was set, the next one counts."""
    place = at // INTERVAL_MS * INTERVAL_MS + SPREAD_MS * crc32(session_id.encode()) / (1 << 32)
    ahead = place - at
    return (ahead if ahead >= SHORTEST_MS else ahead + INTERVAL_MS) / 1000
