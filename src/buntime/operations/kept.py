"""What an account keeps: its snapshots, and how much they and its images take beside its sessions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from buntime import errors
from buntime.caller import Caller
from buntime.lifecycle.layers import Layers
from buntime.ports import Store
from buntime.snapshot import Snapshot

GB = 1 << 30


class Kept:
    def __init__(self, store: Store, layers: Layers, clock: Callable[[], float]) -> None:
        self._store = store
        self._layers = layers
        self._clock = clock

    async def find(self, caller: Caller, snapshot_id: str) -> Snapshot:
        """Raises SnapshotNotFound, for a snapshot of another account too."""
        found = await self._store.get_snapshot(snapshot_id)
        if found is None or found.account != caller.account.id:
            raise errors.SnapshotNotFound(snapshot_id)
        if found.expires_at is not None and found.expires_at <= self._clock():
            raise errors.SnapshotNotFound(snapshot_id)
        return found

    async def check_room(self, caller: Caller) -> None:
        """Raises StorageLimitExceeded when the account keeps more than its plan allows.

        The exact number is only needed where the sum of all sizes is over the limit: layers share what did not change,
        with one another and with sessions.
        """
        limit = caller.plan.snapshot_gb * GB
        if await self._store.counted_bytes(caller.account.id) <= limit:
            return
        counted = await self._store.counted_layers(caller.account.id)
        used = await self._layers.sole_bytes(caller.account.id, counted)
        if used > limit:
            raise errors.StorageLimitExceeded(caller.plan.snapshot_gb, used, caller.plan.name)

    @contextmanager
    def naming_plan(self, caller: Caller) -> Iterator[None]:
        """Adds the plan's name to a ResourceLimitExceeded of the store, which does not know it."""
        try:
            yield
        except errors.ResourceLimitExceeded as refused:
            if refused.details["plan"]:
                raise
            resource, limit, scope = (refused.details[name] for name in ("resource", "limit", "scope"))
            raise errors.ResourceLimitExceeded(str(resource), int(str(limit)), str(scope), caller.plan.name) from None
