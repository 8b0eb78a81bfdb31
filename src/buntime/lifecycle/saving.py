"""Saves volumes to the archive, and restores them.

A saved volume is one object, or a chain of them (see `chains.py`). An object is a stream, compressed, then sealed with
the key of its owner, a session or a layer, for its name and for those of the objects that it stands on. It counts only
after it was read back completely. A transfer runs in a thread of its own and holds no more than a few pieces in memory.
A save gives way to a wake at any moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.ids import LAYER_PREFIX, SESSION_PREFIX
from buntime.lifecycle import chains
from buntime.lifecycle.ahead import read_ahead
from buntime.lifecycle.object_names import epoch_of, made_in, new_name
from buntime.lifecycle.packing import compress, decompress
from buntime.lifecycle.progress import Restore, Restores
from buntime.lifecycle.saved_images import SavedImages
from buntime.lifecycle.sealing import Damaged, Vault, seal, unseal
from buntime.lifecycle.transfers import RETRY_SECONDS, Interrupted, Threads, Transfer
from buntime.plan import MB
from buntime.ports import (
    Archive,
    ArchiveUnavailable,
    ObjectExists,
    ObjectMissing,
    VolumeLost,
    Volumes,
    VolumeUnsendable,
)
from buntime.session import SavedVolume, Session
from buntime.snapshot import Layer

log = structlog.get_logger()

SAVES_AT_ONCE, RESTORES_AT_ONCE = 2, 4
# The largest stream, relative to its session's disk limit. Streams are authentic, so this only bounds our mistakes.
LARGEST_FACTOR, LARGEST_REST = 4, 256 * MB
LARGEST_LAYER = 1 << 20  # MB
HELD = 8 * MB  # of increments that a restore reads before it unpacks the full object, and holds until they are needed
# Why a volume is not in the archive now. A faulty archive may have lost what it has just taken.
UNSAVED = (ArchiveUnavailable, ObjectExists, ObjectMissing, Damaged, VolumeUnsendable, VolumeLost, errors.Unavailable)


@dataclass(slots=True)
class Numbers:
    """Counts since the server started. Bytes are those of the streams, unless said otherwise."""

    saved: int = 0
    saved_bytes: int = 0
    full: int = 0  # of the saved ones, the full objects
    full_bytes: int = 0  # of these objects
    increments: int = 0
    increment_bytes: int = 0
    saves_failed: int = 0
    restored: int = 0
    restored_bytes: int = 0
    damaged: int = 0  # objects that could not be used

    def sent(self, size: int) -> None:
        self.saved_bytes += size

    def received(self, size: int) -> None:
        self.restored_bytes += size

    def stored(self, saved: SavedVolume) -> None:
        self.saved += 1
        if saved.below:
            self.increments += 1
            self.increment_bytes += saved.size
        else:
            self.full += 1
            self.full_bytes += saved.size


type Owner = Session | Layer


class BrokenLink(Exception):
    """An object of a saved volume is missing, or is not what was stored. Never shown."""

    def __init__(self, name: str, reason: Exception) -> None:
        super().__init__(f"{name}: {reason!r}")
        self.name = name
        self.reason = reason


class LayerDamaged(Exception):
    """The layer is not on this host, and the archive does not have it whole. Never shown as it is."""


class Saving:
    """Leaving the block interrupts transfers that are under way. The next server begins them again."""

    def __init__(self, archive: Archive, vault: Vault, volumes: Volumes, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._vault = vault
        self._volumes = volumes
        self._clock = clock
        self._transfers: dict[str, Transfer] = {}  # by owner
        self._unnamed: set[str] = set()  # objects that are being made: the store does not name them yet
        self._threads = Threads()
        self._saves = asyncio.Semaphore(SAVES_AT_ONCE)
        self._restores = asyncio.Semaphore(RESTORES_AT_ONCE)
        self.numbers = Numbers()
        self.restores = Restores()
        self.images = SavedImages(archive, vault)
        self.late = dict[str, float]()  # session → when the checkpoint was due that it does not have yet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transfer in list(self._transfers.values()):
            try:
                await asyncio.to_thread(transfer.interrupt)
            except errors.Unavailable as stuck:
                log.error("transfer_not_ended", reason=stuck.message)
        self._threads.close()

    @property
    def under_way(self) -> int:
        """The number of transfers."""
        return len(self._transfers)

    def with_key(self, session: Session) -> Session:
        """The session with a key of its own. Store it before anything is sealed with the key."""
        return session if session.key else replace(session, key=self.new_key(session.id))

    def new_key(self, owner_id: str) -> str:
        """A key for what this owner saves."""
        return self._vault.new_key(owner_id)

    @contextmanager
    def transfer(self, owner_id: str) -> Iterator[Transfer]:
        """Within the block, `interrupt` finds the transfer."""
        transfer = self._transfers[owner_id] = Transfer()
        try:
            yield transfer
        finally:
            if self._transfers.get(owner_id) is transfer:
                del self._transfers[owner_id]

    async def interrupt(self, owner_id: str) -> None:
        """When this returns, nothing reads or makes the owner's volume any more. Raises Unavailable."""
        transfer = self._transfers.get(owner_id)
        if transfer is not None:
            await asyncio.to_thread(transfer.interrupt)

    # --- saving ---

    async def save(
        self,
        owner: Owner,
        transfer: Transfer,
        base: SavedVolume | None = None,
        *,
        whole: bool = False,
        keep: Callable[[str], Awaitable[None]] | None = None,
    ) -> SavedVolume:
        """Archives the volume of the owner, which no sandbox uses, and reads the object back.

        Of a session, the state that is saved is kept as a parent. `base`: what the session saved last. If its parent is
        here, an increment may stand on it, unless `whole`.

        `keep`: for a checkpoint of a session that is awake. It keeps the volume's state under the mark that it is given
        (see `Volumes.keep`), when the save's turn has come. The caller drops that state if the save fails.

        `tidy` leaves the object alone until the caller calls `named`. Raises Interrupted, ArchiveUnavailable,
        ObjectExists, Damaged, and what `Volumes.send` and `keep` raise; then no object is left, nor its parent.
        """
        async with self._saves:
            taken_at = int(self._clock())
            name = new_name(owner, taken_at)
            new = SavedVolume(name, 0, taken_at, is_checkpoint=keep is not None)
            self._unnamed.add(name)
            try:
                if keep is not None:
                    await keep(new.mark)
                saved = await self._threads.run(self._save, owner, new, base, whole, transfer)
            except BaseException:
                self._unnamed.discard(name)
                self.numbers.saves_failed += 1
                raise
        self.numbers.stored(saved)
        return saved

    def named(self, saved: SavedVolume) -> None:
        """The store names the object now, or never will."""
        self._unnamed.discard(saved.name)

    async def keep_parent(self, session: Session, saved: SavedVolume | None) -> None:
        """Drops all parents of the session's volume but that of `saved`, as far as that is possible now."""
        await asyncio.to_thread(self._drop_parents, session, saved.mark if saved else "")

    def _drop_parents(self, owner: Owner, but: str) -> None:
        """Blocking."""
        try:
            self._volumes.drop_parents(owner.volume, but)
        except errors.Unavailable as failed:  # the next save or the next start does it
            log.warning("parents_not_dropped", owner=owner.id, reason=failed.message)

    def _save(
        self, owner: Owner, new: SavedVolume, base: SavedVolume | None, whole: bool, transfer: Transfer
    ) -> SavedVolume:
        """Blocking."""
        parent = base.mark if base is not None else ""
        if base is not None and not whole and self._can_stand_on(owner, base):
            on_base = replace(new, below=base.links, sizes=(*base.sizes, base.size))
            try:
                return self._put(owner, on_base, parent, parent, transfer)
            except VolumeUnsendable as failed:
                log.warning("increment_not_sent", owner=owner.id, reason=str(failed))
        return self._put(owner, new, "", parent, transfer)

    def _can_stand_on(self, owner: Owner, base: SavedVolume) -> bool:
        """Raises ArchiveUnavailable."""
        if not chains.may_grow(base) or base.mark not in self._volumes.parents(owner.volume):
            return False
        return not self._missing(owner, base.links)  # the archive may be another one now

    def _missing(self, owner: Owner, wanted: Iterable[str]) -> set[str]:
        """Those of the owner's objects that the archive does not have. Blocking. Raises ArchiveUnavailable."""
        missing = {*wanted}.difference(self._archive.names(f"{owner.id}/"))
        if missing:
            log.error("objects_missing", owner=owner.id, objects=sorted(missing))
        return missing

    def _put(self, owner: Owner, new: SavedVolume, since: str, parent: str, transfer: Transfer) -> SavedVolume:
        """Saves a full object, or an increment since the parent with this mark. Returns it with its size. `parent`: the
        mark of what was saved last, which stays when this fails."""
        is_layer = isinstance(owner, Layer)
        try:
            size = self._put_object(owner, new, "" if is_layer else new.mark, since, transfer)
        except BaseException:
            if not is_layer and not new.is_checkpoint:
                self._drop_parents(owner, but=parent)
            raise
        return replace(new, size=size)

    def _put_object(self, owner: Owner, new: SavedVolume, keep: str, since: str, transfer: Transfer) -> int:
        """Returns the object's size in bytes."""
        name = new.name
        key, label = self._vault.unwrap(owner.id, owner.key), _label(owner, new.links)
        put, back = _Count(), _Count()
        try:
            stream = transfer.open(lambda: self._sent(owner, new, keep, since))
            volume = _counted(stream, self.numbers.sent)
            reached("archive: sending")
            self._archive.put(name, _counted(seal(key, label, compress(volume)), put))
        finally:
            transfer.close()
        reached("archive: put")
        try:
            for _ in unseal(key, label, _counted(self._read(name, transfer), back)):
                pass
            if back.total != put.total:
                raise Damaged(f"{put.total} bytes were put, {back.total} read back")
        except BaseException:
            with suppress(ArchiveUnavailable):  # then `Archiving.sweep` removes it
                self._archive.delete(name)
            raise
        reached("archive: verified")
        return put.total

    def _read(self, name: str, transfer: Transfer) -> Iterator[bytes]:
        """The object in pieces. Raises Interrupted at once, even if the archive does not answer."""
        return read_ahead(lambda: self._archive.get(name), transfer.check)

    def _sent(self, owner: Owner, new: SavedVolume, keep: str, since: str) -> Iterator[bytes]:
        if new.is_checkpoint:
            return self._volumes.send_kept(owner.volume, new.mark, since)
        return self._volumes.send(owner.volume, keep, since)

    # --- restoring ---

    async def restore(self, session: Session) -> Session:
        """Puts the volume on this host from the newest saved state that is whole, and returns the session with that one
        as its newest.

        Raises Unavailable when the archive cannot be reached or the host has no room, SessionDamaged when none is whole
        or there never was one, or the newest is a checkpoint: what changed after it would silently be lost.
        """
        if session.saved is None or session.saved.is_checkpoint:
            raise self.lost(session)
        broken: set[str] = set()
        while (saved := chains.longest_whole((session.saved, session.previous), broken)) is not None:
            try:
                await self._restore(session, saved, session.limits.disk)
            except BrokenLink as found:
                self._note_damage(session, found)
                broken.add(found.name)
                continue
            if saved is session.saved:
                return session
            log.error("previous_snapshot_used", session=session.id, object=saved.name, taken_at=saved.taken_at)
            return replace(session, saved=replace(saved, is_checkpoint=False), previous=None)
        raise _none_whole()

    def lost(self, session: Session) -> errors.FilesLost:
        """What requests to a session get whose volume is lost."""
        return errors.FilesLost(None if session.saved is None else self.age_of(session.saved))

    def age_of(self, saved: SavedVolume) -> int:
        """Seconds since the state was taken."""
        return max(0, int(self._clock()) - saved.taken_at)

    async def newest_there(self, session: Session) -> SavedVolume:
        """The newest saved state of the session of which the archive has every object.

        Raises Unavailable when the archive cannot be reached, SessionDamaged when there is none.
        """
        candidates = (session.saved, session.previous)
        try:
            missing = await asyncio.to_thread(self._missing, session, chains.names(candidates))
        except ArchiveUnavailable as away:
            raise self._away(session, away) from away
        saved = chains.longest_whole(candidates, missing)
        if saved is None:
            raise _none_whole()
        return saved

    async def restore_layer(self, layer: Layer) -> None:
        """Puts the layer on this host. Raises Unavailable as `restore` does, and LayerDamaged."""
        if layer.saved is None:
            raise LayerDamaged
        try:
            await self._restore(layer, layer.saved, None)
        except BrokenLink as found:
            self._note_damage(layer, found)
            raise LayerDamaged from found

    def _away(self, owner: Owner, away: ArchiveUnavailable) -> errors.Unavailable:
        log.warning("archive_unavailable", owner=owner.id, reason=str(away))
        return errors.Unavailable("The archive that holds the session's files cannot be reached.", RETRY_SECONDS)

    def _note_damage(self, owner: Owner, found: BrokenLink) -> None:
        self.numbers.damaged += 1
        log.error("snapshot_damaged", owner=owner.id, object=found.name, reason=repr(found.reason))

    async def _restore(self, owner: Owner, saved: SavedVolume, disk: int | None) -> None:
        """Raises BrokenLink for an object that is damaged or missing whenever it is read."""
        with (
            self.transfer(owner.id) as transfer,
            self.restores.under_way(owner.id, sum((*saved.sizes, saved.size))) as restore,
        ):
            try:
                async with self._restores:
                    await self._threads.run(self._receive_again, owner, saved, disk, transfer, restore)
            except Interrupted:
                raise errors.Unavailable("The files are being deleted, or the server stops.", 2) from None
            except ArchiveUnavailable as away:
                raise self._away(owner, away) from away
        self.numbers.restored += 1

    def _receive_again(
        self, owner: Owner, saved: SavedVolume, disk: int | None, transfer: Transfer, restore: Restore
    ) -> None:
        """Blocking. An older state is used only if an object is really damaged: it is read again before that is
        believed. Raises ArchiveUnavailable where the archive says one thing, then the other."""
        try:
            self._receive(owner, saved, disk, transfer, restore)
        except BrokenLink as found:
            self._read_again(owner, saved, found, transfer)
            log.warning("archive_gave_wrong_bytes", owner=owner.id, object=found.name, reason=repr(found.reason))
            try:
                self._receive(owner, saved, disk, transfer, restore)
            except BrokenLink as again:
                self._read_again(owner, saved, again, transfer)
                raise ArchiveUnavailable(f"{again.name} is whole only sometimes") from again

    def _read_again(self, owner: Owner, saved: SavedVolume, found: BrokenLink, transfer: Transfer) -> None:
        """Blocking. Raises `found` unless the object is whole now."""
        if isinstance(found.reason, ValueError):  # it is what was sealed, and the kernel refuses it
            raise found
        links = saved.links[: saved.links.index(found.name) + 1]
        try:
            key = self._vault.unwrap(owner.id, owner.key)
            for _ in unseal(key, _label(owner, links), self._read(found.name, transfer)):
                pass
        except (Damaged, ObjectMissing):
            raise found from found.reason

    def _receive(
        self, owner: Owner, saved: SavedVolume, disk: int | None, transfer: Transfer, restore: Restore
    ) -> None:
        """Blocking. `disk`: the limit in MB; None: of a layer. Raises BrokenLink."""
        try:
            key = self._vault.unwrap(owner.id, owner.key)
        except Damaged as wrong:
            raise BrokenLink(saved.links[0], wrong) from wrong
        largest = LARGEST_FACTOR * (LARGEST_LAYER if disk is None else disk) * MB + LARGEST_REST
        transfer.check()
        restore.begin()
        reached("restore: begun")
        links, at = saved.links, 0

        def sealed(count: int) -> Iterator[bytes]:
            """What is sealed in the last one of so many links."""
            stored = _counted(self._read(links[count - 1], transfer), restore.read)
            return _of_link(links[count - 1], unseal(key, _label(owner, links[:count]), stored))

        def streams() -> Iterator[Iterator[bytes]]:
            nonlocal at
            held = self._held(owner, saved, sealed)
            for at, name in enumerate(links):
                packed = iter(held[name]) if name in held else sealed(at + 1)
                yield _counted(_of_link(name, decompress(packed, largest)), self.numbers.received)

        increments = streams()
        try:
            self._volumes.receive(owner.volume, disk, next(increments), increments, "" if disk is None else saved.mark)
        except ValueError as wrong:
            raise BrokenLink(links[at], wrong) from wrong
        reached("restore: received")

    def _held(
        self, owner: Owner, saved: SavedVolume, sealed: Callable[[int], Iterator[bytes]]
    ) -> Mapping[str, Sequence[bytes]]:
        """Looks whether all links are there, and reads the increments, if they are small enough to be held. So damage
        is found before the full object is unpacked. Raises BrokenLink."""
        if not saved.below:
            return {}
        there = set(self._archive.names(f"{owner.id}/"))
        for name in saved.links:
            if name not in there:
                raise BrokenLink(name, ObjectMissing(name))
        if sum((*saved.sizes[1:], saved.size)) > HELD:
            return {}
        return {name: list(sealed(number)) for number, name in enumerate(saved.links, start=1) if number > 1}

    # --- removing ---

    async def tidy(self, owner: Owner, named: Iterable[SavedVolume | None]) -> None:
        """Removes objects of the owner that nothing of `named` has, as far as that is possible now. What a later owner
        of the session has made stays: this host may have lost the session without knowing it yet."""
        keep, newest = {*chains.names(named)}, epoch_of(owner)
        try:
            await asyncio.to_thread(self._remove, owner.id, keep | self._unnamed, newest)
        except ArchiveUnavailable as away:
            log.warning("archive_not_tidied", owner=owner.id, reason=str(away))

    async def remove(self, owner_id: str) -> None:
        """Removes every object of an owner. Idempotent. Raises Unavailable, also while one is being put there."""
        if any(name.startswith(f"{owner_id}/") for name in self._unnamed):
            raise errors.Unavailable("An object is still being put into the archive.", RETRY_SECONDS)
        try:
            await asyncio.to_thread(self._remove, owner_id, set(), None)
        except ArchiveUnavailable as away:
            raise errors.Unavailable(f"The archive cannot be reached: {away}", RETRY_SECONDS) from away
        try:
            await asyncio.to_thread(self._abort_all, owner_id)
        except ArchiveUnavailable as refused:  # a key may not be allowed to list uploads; else `Leftovers` finds them
            log.warning("uploads_not_removed", owner=owner_id, reason=str(refused))

    def _abort_all(self, owner_id: str) -> None:
        for upload in self._archive.uploads(f"{owner_id}/"):
            self._archive.abort(upload)

    def _remove(self, owner_id: str, keep: set[str], newest: int | None) -> None:
        """`newest`: the epoch of what may be removed at most; None: all. Blocking."""
        for name in self._archive.names(f"{owner_id}/"):
            if name not in keep and (newest is None or made_in(name) <= newest):
                self._archive.delete(name)

    async def owners(self) -> set[str]:
        """Ids of sessions and layers that have objects; the store may not know them. Raises ArchiveUnavailable."""
        names = await asyncio.to_thread(self._archive.names, "")
        return {name.partition("/")[0] for name in names if name.startswith((SESSION_PREFIX, LAYER_PREFIX))}

    def is_making(self, name: str) -> bool:
        """Whether the object is being saved, or was saved and the store does not name it yet."""
        return name in self._unnamed


class _Count:
    """Adds up the sizes that it is called with."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, size: int) -> None:
        self.total += size


def _counted(pieces: Iterator[bytes], note: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        note(len(piece))
        yield piece


def _of_link(name: str, content: Iterator[bytes]) -> Iterator[bytes]:
    """The same content. Raises BrokenLink for damage."""
    try:
        yield from content
    except (Damaged, ObjectMissing) as wrong:
        raise BrokenLink(name, wrong) from wrong


def _none_whole() -> errors.SessionDamaged:
    return errors.SessionDamaged(
        "The session's files cannot be brought back: no snapshot of them is whole.", reason="snapshot_damaged"
    )


def _label(owner: Owner, links: Sequence[str]) -> bytes:
    """An object opens only with the label that it was sealed with: it cannot take the place of another, nor stand on
    others. `links`: names of objects, the object's own last."""
    *below, name = links
    return " ".join([owner.id, name, *below]).encode()
