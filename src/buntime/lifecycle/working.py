"""Which sessions are at work: their own processes use the processor or the network while no request uses them.

Only active sessions whose `sleepPolicy` has `awakeWhile` `processes` are looked at, each once a minute or more often.
A look reads two counters of the kernel and compares them with those of the look before. What a session did in between
is activity, as a request is, if it was enough (see `decisions.is_at_work`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError
from buntime.lifecycle.batches import Batches
from buntime.lifecycle.decisions import Waits, is_at_work
from buntime.ports import Sandboxes, Store, Worked
from buntime.session import Session, State
from buntime.usage import Moment

log = structlog.get_logger()

LONGEST_LOOK, SHORTEST_LOOK = 60.0, 2.0  # seconds between two looks at one session
LOOKS_AT_ONCE = 200  # sessions, about 0.1 ms each; the rest is due at the next tick


@dataclass(frozen=True, slots=True)
class _Look:
    at: float  # steady seconds
    worked: Worked
    rested: bool | None  # since the look before; None: there was none


class Working:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        tasks: Tasks,
        clock: Callable[[], float],
        moment: Callable[[], Moment],
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._clock = clock
        self._moment = moment
        self._batches = Batches("looks at working sessions", LOOKS_AT_ONCE, self._look_at_due, tasks, moment)
        self._sessions: dict[str, tuple[Session, float]] = {}  # as of their last change; seconds between two looks
        self._looks: dict[str, _Look] = {}  # the last one of each

    @property
    def at_rest(self) -> bool:
        return self._batches.at_rest

    def note(self, session: Session, waits: Waits) -> None:
        """The stored session is new, or has changed."""
        if session.state is not State.ACTIVE or not waits.awaits_processes:
            if session.id in self._sessions or session.id in self._looks:
                self.forget(session.id)
            return
        every = max(SHORTEST_LOOK, min(LONGEST_LOOK, waits.idle_after / 2))
        before = self._sessions.get(session.id)
        self._sessions[session.id] = session, every
        if before is None or before[1] != every:
            self._batches.put(session.id, every)

    def begin_due(self) -> None:
        """Begins what is due, in the background. Its cost depends on how many are due."""
        self._batches.begin_due()

    async def rest_after(self, session: Session) -> float:
        """Seconds after which to ask again whether the session is at work. 0: it was not, since the look before.

        Where nothing is known, as while an earlier server's sandbox is taken over, the session may be at work.
        """
        _, every = self._sessions.get(session.id, (session, SHORTEST_LOOK))
        last, now = self._looks.get(session.id), self._steady()
        if last is not None and now - last.at < SHORTEST_LOOK:
            return 0.0 if last.rested else last.at + SHORTEST_LOOK - now
        await self._look_at([session])
        last = self._looks.get(session.id)
        return 0.0 if last is not None and last.rested else every

    def forget(self, session_id: str) -> None:
        """The session is gone, or is not awake any more."""
        self._batches.drop(session_id)
        self._sessions.pop(session_id, None)
        self._looks.pop(session_id, None)

    async def _look_at_due(self, due: Sequence[str]) -> None:
        try:
            sessions = list[Session]()
            for session_id in due:
                if session_id in self._sessions:
                    session, every = self._sessions[session_id]
                    sessions.append(session)
                    self._batches.put(session_id, every)
            await self._look_at(sessions)
        except BuntimeError as failed:  # the next look sees it too
            log.warning("work_not_noted", reason=failed.message)

    async def _look_at(self, sessions: Sequence[Session]) -> None:
        """A session whose sandbox does not run has no look."""
        found = await self._sandboxes.worked(sessions)
        at, now = self._steady(), int(self._clock())
        for session in sessions:
            worked, before = found.get(session.id), self._looks.get(session.id)
            if worked is None:
                self._looks.pop(session.id, None)
                continue
            rested = None
            if before is not None and before.worked.source == worked.source:
                if at - before.at < SHORTEST_LOOK:  # another look was just made
                    continue
                rested = not is_at_work(before.worked, worked, at - before.at)
            self._looks[session.id] = _Look(at, worked, rested)
            if rested is False:
                await self._store.touch_session(session.id, now)

    def _steady(self) -> float:
        return self._moment().steady / 1000
