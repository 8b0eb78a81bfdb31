"""Snapshots, layers and images: which files are kept, besides those of sessions.

Whoever adds a reference to a layer or an image keeps all that is unused from being removed until its commit; whoever
removes what is unused waits for those, and keeps new ones waiting (`keep_references` and `hold_references`).
"""

from collections.abc import Sequence, Set

from psycopg.errors import IntegrityError

from buntime.errors import ImageNotFound, NotOwner, ResourceLimitExceeded, SessionNotFound, SnapshotNotFound
from buntime.event import AccountEvent
from buntime.image import NamedImage, is_always_kept
from buntime.ports import Answer, KeptNumbers
from buntime.session import DESTROYED, SavedVolume, State
from buntime.snapshot import Layer, MadeImage, Snapshot
from buntime.stores.postgres.told import Told
from buntime.stores.postgres.transactions import Transaction
from buntime.stores.rows.kept import image_of, image_row, layer_of, layer_row, made_of, made_row, snapshot_of
from buntime.stores.rows.kept import snapshot_row as row_of_snapshot
from buntime.stores.rows.sessions import saved_to_text


class KeptFiles(Told):
    """The part of `ports.Store` about snapshots, layers and images."""

    # snapshots

    async def add_snapshot(
        self,
        snapshot: Snapshot,
        layer: Layer | None,
        answer: Answer | None,
        limit: int,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("keep_references")
            await transaction.send("lock_account", account=snapshot.account)
            session = await transaction.first("lock_session", id=snapshot.session)
            if session is None or session["state"] == State.DELETING:
                raise SessionNotFound(snapshot.session)
            if session["host"] != self.host:
                raise NotOwner(snapshot.session)
            asked = {"account": snapshot.account, "now": snapshot.created_at}
            if (await transaction.only("count_snapshots", **asked))["snapshots"] >= limit:
                raise ResourceLimitExceeded("snapshots", limit, "account", "")
            await _add_or_require_layer(transaction, layer, snapshot.layer)
            await put_snapshot(transaction, snapshot)

        await self._change_and_answer(answer, work, events)

    async def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        row = await self._transactions.first("get_snapshot", id=snapshot_id)
        return None if row is None else snapshot_of(row)

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
        wanted = {"account": account_id, "now": now, "session": session, "name": name}
        read = self._transactions.filtered
        counted = await read("count_listed_snapshots", **wanted)
        rows = await read("list_snapshots", limit=limit, offset=offset, **wanted)
        return [snapshot_of(row) for row in rows], counted[0]["total"]

    async def count_snapshots(self, account_id: str, now: int) -> int:
        (row,) = await self._transactions.all("count_snapshots", account=account_id, now=now)
        return int(row["snapshots"])

    async def kept_numbers(self, now: int) -> KeptNumbers:
        (row,) = await self._transactions.all("kept_numbers", now=now, destroyed=DESTROYED)
        return KeptNumbers(**row)

    async def remove_snapshot(self, snapshot_id: str) -> bool:
        return await self._run("remove_snapshot", id=snapshot_id) == 1

    async def drop_snapshots(self, now: int) -> int:
        return await self._run("drop_snapshots", now=now)

    async def drop_kept_of(self, account_id: str) -> int:
        async def work(transaction: Transaction) -> int:
            dropped = await transaction.run("drop_snapshots_of", account=account_id)
            return dropped + await transaction.run("drop_names_of", account=account_id)

        return await self._change(work)

    # layers

    async def add_layer(self, layer: Layer) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("keep_references")
            await _add_layer(transaction, layer)

        await self._change(work)

    async def get_layer(self, layer_id: str) -> Layer | None:
        row = await self._transactions.first("get_layer", id=layer_id)
        return None if row is None else layer_of(row)

    async def find_fork_layer(self, account_id: str, key: str) -> Layer | None:
        row = await self._transactions.first("find_fork_layer", account=account_id, fork=key)
        return None if row is None else layer_of(row)

    async def all_layers(self) -> Sequence[Layer]:
        return [layer_of(row) for row in await self._transactions.all("all_layers")]

    async def counted_layers(self, account_id: str) -> Sequence[Layer]:
        rows = await self._transactions.all("counted_layers", account=account_id, destroyed=DESTROYED)
        return [layer_of(row) for row in rows]

    async def counted_bytes(self, account_id: str) -> int:
        (row,) = await self._transactions.all("counted_bytes", account=account_id, destroyed=DESTROYED)
        return int(row["bytes"])

    async def save_layer(self, layer_id: str, saved: SavedVolume) -> bool:
        values = {"id": layer_id, "saved": saved_to_text(saved), "destroyed": DESTROYED}
        return await self._run("save_layer", **values) == 1

    async def end_fork(self, layer_id: str) -> None:
        await self._run("end_fork", id=layer_id)

    async def condemn_layers(self, before: int) -> Sequence[Layer]:
        async def work(transaction: Transaction) -> Sequence[Layer]:
            await transaction.send("hold_references")
            await transaction.send("condemn_layers", destroyed=DESTROYED, before=before)
            return [layer_of(row) for row in await transaction.all("condemned_layers", destroyed=DESTROYED)]

        return await self._change(work)

    async def remove_layer(self, layer_id: str) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("remove_layer", id=layer_id, destroyed=DESTROYED)
            if await transaction.first("get_layer", id=layer_id) is not None:
                raise ValueError(f"layer {layer_id} is not condemned")

        await self._change(work)

    # images

    async def add_made_image(
        self, made: MadeImage, name: NamedImage, layer: Layer | None, answer: Answer | None, limit: int
    ) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("keep_references")
            await transaction.send("lock_account", account=name.account)
            names = await transaction.only("count_names", account=name.account, name=name.name)
            if names["names"] >= limit and not names["has_it"]:
                raise ResourceLimitExceeded("images", limit, "account", "")
            await _add_or_require_layer(transaction, layer, made.layer)
            await transaction.send("add_made_image", **made_row(made))
            await transaction.send("put_image", **image_row(name))

        await self._change_and_answer(answer, work)

    async def get_made_image(self, image_id: str) -> MadeImage | None:
        row = await self._transactions.first("get_made_image", id=image_id)
        return None if row is None else made_of(row)

    async def all_made_images(self) -> Sequence[MadeImage]:
        return [made_of(row) for row in await self._transactions.all("all_made_images")]

    async def drop_made_images(self) -> Sequence[str]:
        async def work(transaction: Transaction) -> Sequence[str]:
            await transaction.send("hold_references")
            return [row["id"] for row in await transaction.all("drop_made_images")]

        return await self._change(work)

    async def add_image(self, image: NamedImage) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("keep_references")
            await transaction.send("put_image", **image_row(image))

        await self._change(work)

    async def find_image(self, account_id: str, name: str) -> NamedImage | None:
        row = await self._transactions.first("find_image", account=account_id, name=name)
        return None if row is None else image_of(row)

    async def list_images(self, account_id: str) -> Sequence[NamedImage]:
        return [image_of(row) for row in await self._transactions.all("list_images", account=account_id)]

    async def remove_image(self, account_id: str, name: str) -> bool:
        return await self._run("remove_image", account=account_id, name=name) == 1

    async def used_images(self) -> Set[str]:
        return {row["image"] for row in await self._transactions.all("used_images")}


async def require_kept(transaction: Transaction, image_id: str, name: str) -> None:
    """Raises ImageNotFound with the name if the image can be removed at any moment, because nothing refers to it."""
    if not is_always_kept(image_id) and not (await transaction.only("is_used", image=image_id))["is_used"]:
        raise ImageNotFound(name)


async def put_layer(transaction: Transaction, layer: Layer) -> None:
    """Adds a layer whose image is known to be kept. Raises ValueError if the id or the fork is taken."""
    try:
        await transaction.run("add_layer", **layer_row(layer))
    except IntegrityError as refused:
        raise ValueError(f"layer {layer.id}: the id is taken, or its fork has another one") from refused


async def put_snapshot(transaction: Transaction, snapshot: Snapshot) -> None:
    """Raises ValueError if the id is taken."""
    try:
        await transaction.run("add_snapshot", **row_of_snapshot(snapshot))
    except IntegrityError as refused:
        raise ValueError(f"snapshot id {snapshot.id} is taken") from refused


async def _add_layer(transaction: Transaction, layer: Layer) -> None:
    """Raises ImageNotFound if the image below is being removed, and ValueError if the id or the fork is taken."""
    await require_kept(transaction, layer.image, layer.image)
    await put_layer(transaction, layer)


async def _add_or_require_layer(transaction: Transaction, layer: Layer | None, layer_id: str) -> None:
    """Adds the layer if there is one. Otherwise raises SnapshotNotFound unless the store has one that will stay."""
    if layer is not None:
        await _add_layer(transaction, layer)
        return
    found = await transaction.first("get_layer", id=layer_id)
    if found is None or found["key"] == DESTROYED:
        raise SnapshotNotFound("")
