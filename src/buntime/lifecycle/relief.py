"""Freeing memory and disk when this host runs short of them."""

from collections.abc import Sequence
from contextlib import suppress

import structlog

from buntime import errors
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.decisions import coldest_suspended, least_recently_used
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.transitions import Transitions
from buntime.ports import Sandboxes, Store
from buntime.session import Session

log = structlog.get_logger()

RELIEVED_AT_ONCE = 4  # suspended sessions that go to deep sleep early


class Relief:
    def __init__(
        self, store: Store, sandboxes: Sandboxes, transitions: Transitions, archiving: Archiving, layers: Layers
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._transitions = transitions
        self._archiving = archiving
        self._layers = layers

    async def relieve(self) -> bool:
        """Puts the coldest suspended sessions to deep sleep, drops parents, and evicts volumes and layers that are
        archived, a few at a time.

        Returns whether that freed anything.
        """
        strain = self._sandboxes.strain()
        if not strain.memory and not strain.disk and not strain.sandboxes:
            return False
        sessions = await self._store.all_sessions()
        freed = False
        if strain.memory or strain.sandboxes:
            for session in coldest_suspended(sessions)[:RELIEVED_AT_ONCE]:
                with suppress(errors.SessionNotFound, errors.StillWaking):  # deleted meanwhile, or not taken over yet
                    freed |= await self._transitions.deep_sleep(session.id, session.last_active)
                    log.warning("slept_early", session=session.id, short_of=strain.memory or "sandboxes")
        if strain.disk:
            freed |= await self._relieve_disk(sessions, strain.disk)
        return freed

    async def _relieve_disk(self, sessions: Sequence[Session], wanted: int) -> bool:
        """What costs least comes first: without a parent, the next archive is full."""
        shed = await self._sandboxes.volumes.shed(wanted)
        if shed >= wanted:
            return True
        freed = shed > 0
        for session in least_recently_used(sessions, self._sandboxes.volumes.cached(), wanted - shed):
            with suppress(errors.SessionNotFound):
                await self._archiving.evict(session.id)
            freed = True
        return await self._layers.evict(wanted - shed) or freed
