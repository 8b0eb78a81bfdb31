"""What an account keeps: its snapshots, and how much they and its images take beside its sessions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from buntime import errors
from buntime.caller import Caller
from buntime.lifecycle.layers import Layers
from buntime.ports import Store
from buntime.snapshot import Snapshot

GB = 1 << 30
ALL = 1 << 30  # more snapshots than an account can have


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
        snapshots, _ = await self._store.list_snapshots(caller.account.id, now=int(self._clock()), limit=ALL)
        automatic = {each.layer for each in snapshots if each.is_automatic}
        not_counted = automatic - {each.layer for each in snapshots if not each.is_automatic}
        layers = await self._store.account_layers(caller.account.id)
        counted = [layer for layer in layers if layer.id not in not_counted]
        if sum(layer.size for layer in counted) <= limit:
            return
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
