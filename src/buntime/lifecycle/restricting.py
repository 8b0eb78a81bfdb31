"""Makes the network rules in force those that the stored session has.

A change of the rules is stored first, and then put in force. Whoever puts them reads the session again, in turn with
all others of the session. So the last one puts what is stored, whatever runs beside it and whatever failed before.

A turn is not the lock of transitions: a change of the rules waits for no wake and no sleep.
"""

import asyncio
from contextlib import suppress
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.changes import Changes
from buntime.ports import Owners, Sandboxes, Store
from buntime.session import Session

log = structlog.get_logger()

AGAIN_SECONDS = 2.0  # between tries to put rules whose change has failed


class Restricting:
    def __init__(self, store: Store, sandboxes: Sandboxes, changes: Changes, owners: Owners, tasks: Tasks) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._changes = changes
        self._owners = owners
        self._tasks = tasks
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._late: dict[str, int] = {}  # session whose rules are put later → failures so far

    async def put(self, session_id: str) -> Session:
        """Puts the stored rules in force in the session's sandbox, if it runs. Returns the session that has them.

        A wake that is starting another sandbox puts them itself, before anybody uses that. Raises SessionNotFound, and
        Unavailable where the rules may not be in force.
        """
        async with self._turns.setdefault(session_id, asyncio.Lock()):
            session = await self._changes.present(session_id)
            while True:
                # if the sandbox ends meanwhile, the next one starts with the stored rules
                await self._sandboxes.restrict(session.sandbox, session.network)
                stored = await self._changes.present(session_id)
                if (stored.sandbox, stored.network) == (session.sandbox, session.network):
                    return stored
                session = stored

    def is_late(self, session_id: str) -> bool:
        """Whether the rules in force may be other ones than the stored ones since a change of them failed."""
        return session_id in self._late

    def put_later(self, session_id: str) -> None:
        """Puts the stored rules in force in the background, as soon as that is possible."""
        is_waiting = session_id in self._late
        self._late[session_id] = self._late.get(session_id, 0) + 1
        if not is_waiting:
            self._tasks.listen(self._put_late(session_id), f"network rules of {session_id}")

    async def _put_late(self, session_id: str) -> None:
        try:
            while True:
                failures = self._late[session_id]
                await asyncio.sleep(AGAIN_SECONDS)
                # what failed meanwhile may be stored only now
                if await self._is_settled(session_id) and self._late[session_id] == failures:
                    return
        finally:
            del self._late[session_id]

    async def _is_settled(self, session_id: str) -> bool:
        """Whether the stored rules are in force, after another try, or this host has the session no more."""
        try:
            await self.put(session_id)
        except errors.SessionNotFound:
            return True
        except errors.Unavailable as failed:
            log.warning("network_rules_not_put", session=session_id, reason=str(failed))
            return isinstance(failed, errors.NotOwner) and await self._is_elsewhere(session_id)
        return True

    async def _is_elsewhere(self, session_id: str) -> bool:
        """A host that may not act just now still has its sessions, and their sandboxes."""
        with suppress(errors.Unavailable):
            stored = await self._store.get_session(session_id)
            return stored is None or stored.host != self._owners.host
        return False
