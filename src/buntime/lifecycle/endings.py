"""How a session ends: it is marked, its sandbox is killed, then everything that belonged to it is removed."""

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.leases import Leases
from buntime.lifecycle.snapshots import Snapshots
from buntime.ports import Sandboxes, Store
from buntime.session import Event, Session, State

log = structlog.get_logger()


class Endings:
    """Ends sessions for the API and for the keeper."""

    def __init__(self, store: Store, sandboxes: Sandboxes, leases: Leases, snapshots: Snapshots, tasks: Tasks) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._leases = leases
        self._snapshots = snapshots
        self._tasks = tasks
        self._finishing: set[str] = set()  # sessions whose remains are being removed

    async def end(self, session: Session) -> None:
        """Returns when the deletion is durable and nothing of the session runs. Its remains are removed afterwards.

        Raises SessionNotFound when another request deleted it first.
        """
        while session.state is not State.DELETING:
            try:
                session = await self._store.change_session(session, session.after(Event.DELETE))
            except errors.StaleSession:
                stored = await self._store.get_session(session.id)
                if stored is None or stored.state is State.DELETING:
                    raise errors.SessionNotFound(session.id) from None
                session = stored
        reached("delete: marked")
        await self._leases.end(session, self._kill)
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
            await self._leases.end(session, self._sandboxes.destroy)
            if session.key:
                await self._snapshots.remove(session.id)
                reached("delete: objects removed")
            await self._store.remove_session(session.id)
        except errors.Unavailable as failed:
            log.warning("delete_not_finished", session=session.id, reason=failed.message)
            return False
        finally:
            self._finishing.discard(session.id)
        reached("delete: forgotten")
        self._leases.forget(session.id)
        return True

    async def _kill(self, sandbox_id: str) -> None:
        await self._sandboxes.kill(sandbox_id)
        await self._sandboxes.disconnect(sandbox_id)  # the other end may have gone without a word
