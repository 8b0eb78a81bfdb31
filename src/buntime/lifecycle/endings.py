"""How a session ends: it is marked, its sandbox is killed, then everything that belonged to it is removed."""

from collections.abc import Awaitable, Callable

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.image import MADE_PREFIX
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.checkpoints import Checkpoints
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.measuring import Measuring
from buntime.lifecycle.metering import Metering
from buntime.lifecycle.observations import Observations
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.services import Services
from buntime.lifecycle.transitions import Transitions
from buntime.lifecycle.working import Working
from buntime.ports import Sandboxes, Store
from buntime.session import Event, Session

log = structlog.get_logger()


class Endings:
    """Ends sessions for the API and for the keeper."""

    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        layers: Layers,
        changes: Changes,
        holds: Holds,
        forgetting: tuple[
            Holds | Observations | Archiving | Checkpoints | Transitions | Metering | Services | Working, ...
        ],
        tasks: Tasks,
        metering: Metering,
        measuring: Measuring,
    ) -> None:
        """`forgetting`: what remembers something of a session until the session is gone."""
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._layers = layers
        self._changes = changes
        self._holds = holds
        self._forgetting = forgetting
        self._tasks = tasks
        self._metering = metering
        self._measuring = measuring
        self._finishing: set[str] = set()  # sessions whose remains are being removed

    async def end(self, session: Session) -> None:
        """Returns when the deletion is durable and nothing of the session runs. Its remains are removed afterwards.

        Raises SessionNotFound when another request deleted it first.
        """
        used = await self._metering.read(session)
        session = await self._changes.change(session.id, lambda s: s.after(Event.DELETE), used)
        reached("delete: marked")
        await self._alone(session, self._kill)
        reached("delete: killed")
        self._tasks.start(self.finish(session), f"finish delete {session.id}")

    async def finish(self, session: Session) -> bool:
        """Removes what is left of a deleted session, its objects in the archive last.

        Returns False when that is not possible now. You can call it again: the keeper does.
        """
        if session.id in self._finishing:
            return False
        self._finishing.add(session.id)
        try:
            await self._alone(session, self._sandboxes.destroy)
            await self._measuring.remove(session.id)
            reached("delete: history removed")
            if session.key:
                await self._saving.remove(session.id)
                reached("delete: objects removed")
            await self._store.remove_session(session.id)
        except errors.Unavailable as failed:
            log.warning("delete_not_finished", session=session.id, reason=failed.message)
            return False
        finally:
            self._finishing.discard(session.id)
        reached("delete: forgotten")
        self.forget(session.id)
        if session.image.startswith(MADE_PREFIX):
            self._layers.look_soon()
        return True

    def forget(self, session_id: str) -> None:
        """The session is gone, or another host has it."""
        for part in self._forgetting:
            part.forget(session_id)

    async def _alone(self, session: Session, work: Callable[[Session], Awaitable[None]]) -> None:
        """Calls `work` while no transition and no transfer of the session is under way."""
        await self._saving.interrupt(session.id)
        async with self._holds.lock(session.id):
            await self._saving.interrupt(session.id)  # a save may have begun before we got the lock
            await work(session)

    async def _kill(self, session: Session) -> None:
        await self._sandboxes.kill(session.sandbox)
        await self._sandboxes.disconnect(session.sandbox)  # the other end may never have been told
