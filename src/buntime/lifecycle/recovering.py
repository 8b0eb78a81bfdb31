"""Goes on from what the archive has of a session whose volume is lost, because its account asks for it.

One stored change puts the session into deep sleep with that state and a new volume, which the next wake restores. So
nothing that is left of the lost volume is used: if it comes back, it is an orphan, which the next start removes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.ids import new_volume_id
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.decisions import is_lost
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.records import no_sandbox
from buntime.lifecycle.saving import Saving
from buntime.ports import Answer, Sandboxes, Store
from buntime.session import SavedVolume, Session

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Recovered:
    """A session in deep sleep, and the saved state that its next wake restores."""

    session: Session
    age: int  # seconds since the state was taken

    @property
    def taken_at(self) -> int:
        """Unix seconds."""
        assert self.session.saved is not None
        return self.session.saved.taken_at


type AnswerTo = Callable[[Recovered], Answer]


class Recovering:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        changes: Changes,
        holds: Holds,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._changes = changes
        self._holds = holds
        self._tasks = tasks

    async def recover(self, session_id: str, answer: AnswerTo | None) -> Recovered:
        """Gives up what the session's lost volume had. Neither wakes the session nor counts as activity.

        `answer` returns what is stored together with the change. Raises SessionNotFound, NotLost, SessionDamaged when
        the archive has no state of it, SessionBusy while a request uses the session, and Unavailable.
        """
        await self._holds.spent(session_id)
        async with self._holds.lock(session_id):
            session = await self._lost(session_id)
            if self._sandboxes.is_running(session.sandbox):  # it runs on without its files
                if self._holds.in_use(session_id):
                    raise errors.SessionBusy("The session is in use. Try again when its requests have ended.")
                await self._sandboxes.kill(session.sandbox)
            await self._saving.interrupt(session_id)
            recovered = await self._stored(session, await self._newest(session), answer)
        reached("recover: stored")
        saved, after = recovered.session.saved, recovered.session
        log.warning(
            "session_recovered",
            session=session_id,
            object=saved and saved.name,
            age_seconds=recovered.age,
            lost_volume=session.volume,
            volume=after.volume,
        )
        self._tasks.start(self._sandboxes.destroy(session), f"clean up after recovery of {session_id}")
        return recovered

    async def _lost(self, session_id: str) -> Session:
        session = await self._changes.present(session_id)
        if not is_lost(session, is_here=self._sandboxes.volumes.exists(session.volume)):
            raise errors.NotLost
        return session

    async def _newest(self, session: Session) -> SavedVolume:
        """Raises Unavailable and SessionDamaged."""
        if session.saved is None:
            raise self._saving.lost(session)
        return await self._saving.newest_there(session)

    async def _stored(self, session: Session, saved: SavedVolume, answer: AnswerTo | None) -> Recovered:
        while True:
            is_newest = saved == session.saved
            after = replace(
                session.down(),
                sandbox=no_sandbox(is_foreign=False),  # what is left of the old one is removed meanwhile
                volume=new_volume_id(),
                saved=replace(saved, is_checkpoint=False),
                previous=replace(session.previous, is_checkpoint=False) if is_newest and session.previous else None,
                archived=True,
            )
            recovered = Recovered(after, self._saving.age_of(saved))
            try:
                events = self._changes.events_of(session, after)
                stored = await self._store.change_session(session, after, answer and answer(recovered), events=events)
                return replace(recovered, session=stored)
            except errors.StaleSession:  # a PATCH came first
                session = await self._changes.present(session.id)
