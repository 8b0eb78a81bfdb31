"""Snapshots, layers and images in the SQLite file: which files are kept, besides those of sessions."""

import sqlite3
from collections.abc import Sequence, Set
from functools import partial

from buntime.event import AccountEvent
from buntime.image import NamedImage
from buntime.ports import Answer, KeptNumbers
from buntime.session import SavedVolume
from buntime.snapshot import Layer, MadeImage, Snapshot
from buntime.stores.sqlite import images, layers, made_images, snapshots
from buntime.stores.sqlite.told import Told


class KeptFiles(Told):
    """The part of `ports.Store` about snapshots, layers and images.

    What is removed here has content of an account, or a key. So each removal lets the log be emptied.
    """

    # snapshots

    async def add_snapshot(
        self,
        snapshot: Snapshot,
        layer: Layer | None,
        answer: Answer | None,
        limit: int,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        work = partial(snapshots.add_snapshot, snapshot=snapshot, layer=layer, limit=limit)
        await self._change_and_answer(answer, work, told=events)

    async def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        return snapshots.get_snapshot(self._reader, snapshot_id)

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
        return snapshots.list_snapshots(self._reader, account_id, now, session, name, limit, offset)

    async def count_snapshots(self, account_id: str, now: int) -> int:
        return snapshots.count_snapshots(self._reader, account_id, now)

    async def kept_numbers(self, now: int) -> KeptNumbers:
        counted = snapshots.count_all_snapshots(self._reader, now)
        return KeptNumbers(counted, *layers.layer_numbers(self._reader))

    async def remove_snapshot(self, snapshot_id: str) -> bool:
        return await self._change(partial(snapshots.remove_snapshot, snapshot_id=snapshot_id), self._removed)

    async def drop_snapshots(self, now: int) -> int:
        return await self._change(partial(snapshots.drop_snapshots, now=now), self._removed)

    async def drop_kept_of(self, account_id: str) -> int:
        def work(connection: sqlite3.Connection) -> int:
            return snapshots.drop_snapshots_of(connection, account_id) + images.drop_names_of(connection, account_id)

        return await self._change(work, self._removed)

    # layers

    async def add_layer(self, layer: Layer) -> None:
        await self._change(partial(layers.add_layer, layer=layer))

    async def get_layer(self, layer_id: str) -> Layer | None:
        return layers.get_layer(self._reader, layer_id)

    async def find_fork_layer(self, account_id: str, key: str) -> Layer | None:
        return layers.find_fork_layer(self._reader, account_id, key)

    async def all_layers(self) -> Sequence[Layer]:
        return layers.all_layers(self._reader)

    async def counted_layers(self, account_id: str) -> Sequence[Layer]:
        return layers.counted_layers(self._reader, account_id)

    async def counted_bytes(self, account_id: str) -> int:
        return layers.counted_bytes(self._reader, account_id)

    async def save_layer(self, layer_id: str, saved: SavedVolume) -> bool:
        return await self._change(partial(layers.save_layer, layer_id=layer_id, saved=saved))

    async def end_fork(self, layer_id: str) -> None:
        await self._change(partial(layers.end_fork, layer_id=layer_id))

    async def condemn_layers(self, before: int) -> Sequence[Layer]:
        def committed(done: tuple[int, Sequence[Layer]]) -> Sequence[Layer]:
            now, condemned = done
            self._removed(now)
            return condemned

        return await self._change(partial(layers.condemn_layers, before=before), committed)

    async def remove_layer(self, layer_id: str) -> None:
        await self._change(partial(layers.remove_layer, layer_id=layer_id), lambda _: self._log.due())

    # images

    async def add_made_image(
        self, made: MadeImage, name: NamedImage, layer: Layer | None, answer: Answer | None, limit: int
    ) -> None:
        work = partial(made_images.add_made_image, made=made, name=name, layer=layer, limit=limit)
        await self._change_and_answer(answer, work)

    async def get_made_image(self, image_id: str) -> MadeImage | None:
        return made_images.get_made_image(self._reader, image_id)

    async def all_made_images(self) -> Sequence[MadeImage]:
        return made_images.all_made_images(self._reader)

    async def drop_made_images(self) -> Sequence[str]:
        return await self._change(made_images.drop_made_images, self._removed)

    async def add_image(self, image: NamedImage) -> None:
        await self._change(partial(images.put_image, image=image))

    async def find_image(self, account_id: str, name: str) -> NamedImage | None:
        return images.find_image(self._reader, account_id, name)

    async def list_images(self, account_id: str) -> Sequence[NamedImage]:
        return images.list_images(self._reader, account_id)

    async def remove_image(self, account_id: str, name: str) -> bool:
        return await self._change(partial(images.remove_image, account_id=account_id, name=name))

    async def used_images(self) -> Set[str]:
        return images.used_images(self._reader)

    def _removed[T: (bool, int, Sequence[str])](self, what: T) -> T:
        """Wipes the removed rows from the log too, if there were any. Returns `what`."""
        if what:
            self._log.due()
        return what
