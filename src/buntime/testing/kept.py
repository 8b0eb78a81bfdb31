"""The part of the fake store about snapshots, layers and images."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

from buntime.errors import (
    ImageNotFound,
    ResourceLimitExceeded,
    SessionNotFound,
    SnapshotNotFound,
)
from buntime.event import AccountEvent
from buntime.image import DEFAULT_IMAGE, OPERATOR, NamedImage, is_always_kept
from buntime.ports import Answer, KeptNumbers
from buntime.session import DESTROYED, SavedVolume, Session, State
from buntime.snapshot import Layer, MadeImage, Snapshot
from buntime.testing.events import FakeEvents


class FakeKeptFiles(FakeEvents):
    """See `testing.store.FakeStore`."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.layers: dict[str, Layer] = {}
        self.images: dict[tuple[str, str], NamedImage] = {}  # by account and name
        self.made_images: dict[str, MadeImage] = {}

    # snapshots

    async def add_snapshot(
        self,
        snapshot: Snapshot,
        layer: Layer | None,
        answer: Answer | None,
        limit: int,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        session = self.sessions.get(snapshot.session)
        if session is None or session.state is State.DELETING:
            raise SessionNotFound(snapshot.session)
        if await self.count_snapshots(snapshot.account, snapshot.created_at) >= limit:
            raise ResourceLimitExceeded("snapshots", limit, "account", "")
        self._require_layer(layer, snapshot.layer)
        if snapshot.id in self.snapshots:
            raise ValueError(f"snapshot id {snapshot.id} is taken")
        if answer is not None:
            self._add_first(answer)
        self._put_layer(layer)
        self.snapshots[snapshot.id] = snapshot
        self.note_events(events)

    async def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        return self.snapshots.get(snapshot_id)

    async def list_snapshots(
        self,
        account_id: str,
        *,
        now: int,
        session: str | None = None,
        name: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Snapshot], int]:
        found = [
            snapshot
            for snapshot in self._living(account_id, now)
            if session in (None, snapshot.session) and name in (None, snapshot.name)
        ]
        found.reverse()  # the last one added is the first of its second
        found.sort(key=lambda snapshot: -snapshot.created_at)
        return found[offset : offset + limit], len(found)

    async def count_snapshots(self, account_id: str, now: int) -> int:
        return sum(not snapshot.is_automatic for snapshot in self._living(account_id, now))

    async def kept_numbers(self, now: int) -> KeptNumbers:
        counted = sum(
            not one.is_automatic and (one.expires_at is None or one.expires_at > now) for one in self.snapshots.values()
        )
        layers = [layer for layer in self.layers.values() if not layer.is_condemned]
        unsaved = sum(layer.saved is None for layer in layers)
        return KeptNumbers(counted, len(layers), sum(layer.size for layer in layers), unsaved)

    async def remove_snapshot(self, snapshot_id: str) -> bool:
        return self.snapshots.pop(snapshot_id, None) is not None

    async def drop_snapshots(self, now: int) -> int:
        old = [one.id for one in self.snapshots.values() if one.expires_at is not None and one.expires_at <= now]
        for snapshot_id in old:
            del self.snapshots[snapshot_id]
        return len(old)

    async def drop_kept_of(self, account_id: str) -> int:
        before = len(self.snapshots) + len(self.images)
        self.snapshots = {one.id: one for one in self.snapshots.values() if one.account != account_id}
        self.images = {key: image for key, image in self.images.items() if image.account != account_id}
        return before - len(self.snapshots) - len(self.images)

    def _living(self, account_id: str, now: int) -> Iterable[Snapshot]:
        for snapshot in self.snapshots.values():
            if snapshot.account == account_id and (snapshot.expires_at is None or snapshot.expires_at > now):
                yield snapshot

    # layers

    async def add_layer(self, layer: Layer) -> None:
        self._require_layer(layer, layer.id)
        self._put_layer(layer)

    async def get_layer(self, layer_id: str) -> Layer | None:
        return self.layers.get(layer_id)

    async def find_fork_layer(self, account_id: str, key: str) -> Layer | None:
        found = [one for one in self.layers.values() if one.fork and (one.account, one.fork) == (account_id, key)]
        return found[0] if found else None

    async def all_layers(self) -> Sequence[Layer]:
        return sorted(self.layers.values(), key=lambda layer: (layer.created_at, layer.id))

    async def counted_layers(self, account_id: str) -> Sequence[Layer]:
        automatic = {one.layer for one in self.snapshots.values() if one.is_automatic}
        others = {one.layer for one in self.snapshots.values() if not one.is_automatic}
        not_counted = automatic - others - {one.layer for one in self.made_images.values()}
        return [
            one
            for one in await self.all_layers()
            if one.account == account_id and not one.is_condemned and one.id not in not_counted
        ]

    async def counted_bytes(self, account_id: str) -> int:
        return sum(one.size for one in await self.counted_layers(account_id))

    async def save_layer(self, layer_id: str, saved: SavedVolume) -> bool:
        layer = self.layers.get(layer_id)
        if layer is None or layer.is_condemned or layer.saved is not None:
            return False
        self.layers[layer_id] = replace(layer, saved=saved)
        return True

    async def end_fork(self, layer_id: str) -> None:
        if layer_id in self.layers:
            self.layers[layer_id] = replace(self.layers[layer_id], fork="")

    async def condemn_layers(self, before: int) -> Sequence[Layer]:
        used = {one.layer for one in self.snapshots.values()} | {one.layer for one in self.made_images.values()}
        for layer in list(self.layers.values()):
            if layer.id not in used and not (layer.fork and layer.created_at > before):
                self.layers[layer.id] = replace(layer, key=DESTROYED, fork="")
        return [layer for layer in await self.all_layers() if layer.is_condemned]

    async def remove_layer(self, layer_id: str) -> None:
        layer = self.layers.get(layer_id)
        if layer is not None and not layer.is_condemned:
            raise ValueError(f"layer {layer_id} is not condemned")
        self.layers.pop(layer_id, None)

    def _require_layer(self, layer: Layer | None, layer_id: str) -> None:
        """Refuses as adding the layer would, or as naming one that is there."""
        if layer is not None:
            self._require_kept(layer.image, layer.image)
            self._require_new_layer(layer)
        elif layer_id not in self.layers or self.layers[layer_id].is_condemned:
            raise SnapshotNotFound("")

    def _require_new_layer(self, layer: Layer) -> None:
        others = self.layers.values()
        same_fork = any(one.fork and (one.account, one.fork) == (layer.account, layer.fork) for one in others)
        if layer.id in self.layers or same_fork:
            raise ValueError(f"layer {layer.id}: the id is taken, or its fork has another one")

    def _put_layer(self, layer: Layer | None) -> None:
        if layer is not None:
            self.layers[layer.id] = layer

    # images

    async def add_made_image(
        self, made: MadeImage, name: NamedImage, layer: Layer | None, answer: Answer | None, limit: int
    ) -> None:
        names = {image.name for image in self.images.values() if image.account == name.account}
        if len(names) >= limit and name.name not in names:
            raise ResourceLimitExceeded("images", limit, "account", "")
        self._require_layer(layer, made.layer)
        if answer is not None:
            self._add_first(answer)
        self._put_layer(layer)
        self.made_images.setdefault(made.id, made)
        self.images[name.account, name.name] = name

    async def get_made_image(self, image_id: str) -> MadeImage | None:
        return self.made_images.get(image_id)

    async def all_made_images(self) -> Sequence[MadeImage]:
        return sorted(self.made_images.values(), key=lambda made: (made.created_at, made.id))

    async def drop_made_images(self) -> Sequence[str]:
        used = self._used()
        dropped = [made.id for made in await self.all_made_images() if made.id not in used]
        for image_id in dropped:
            del self.made_images[image_id]
        return dropped

    async def add_image(self, image: NamedImage) -> None:
        self.images[image.account, image.name] = image

    async def find_image(self, account_id: str, name: str) -> NamedImage | None:
        return self.images.get((account_id, name)) or self.images.get((OPERATOR, name))

    async def list_images(self, account_id: str) -> Sequence[NamedImage]:
        names = sorted({name for account, name in self.images if account in (account_id, OPERATOR)})
        return [image for name in names if (image := await self.find_image(account_id, name))]

    async def remove_image(self, account_id: str, name: str) -> bool:
        return self.images.pop((account_id, name), None) is not None

    async def used_images(self) -> Set[str]:
        return self._used()

    def _used(self) -> Set[str]:
        named = {image.id for image in self.images.values()}
        bases = {made.base for made in self.made_images.values()}
        return named | bases | {one.image for one in self._on_images()}

    def _on_images(self) -> Sequence[Session | Snapshot | Layer]:
        return [*self.sessions.values(), *self.snapshots.values(), *self.layers.values()]

    def _require_kept(self, image_id: str, name: str) -> None:
        if not is_always_kept(image_id) and image_id not in self._used():
            raise ImageNotFound(name)

    async def _require_image(self, session: Session) -> None:
        named = await self.find_image(session.account, session.image_name)
        if session.image_name == DEFAULT_IMAGE or (named is not None and named.id == session.image):
            return
        if not any((one.account, one.image) == (session.account, session.image) for one in self._on_images()):
            raise ImageNotFound(session.image_name)
