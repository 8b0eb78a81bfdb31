"""Saves volumes to the archive, and restores them.

A saved volume is one object: its stream, compressed, then sealed for the object's name with the key of its owner, a
session or a layer. It counts only after it was read back completely. A transfer runs in a thread of its own and holds
no more than a few pieces in memory. A save gives way to a wake at any moment.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.lifecycle.packing import compress, decompress
from buntime.lifecycle.sealing import Damaged, Vault, seal, unseal
from buntime.plan import MB
from buntime.ports import Archive, ArchiveUnavailable, ObjectMissing, VolumeLost, Volumes, VolumeUnsendable
from buntime.session import SavedVolume, Session
from buntime.snapshot import Layer

log = structlog.get_logger()

SAVES_AT_ONCE, RESTORES_AT_ONCE = 2, 4
INTERRUPT_SECONDS, INTERRUPT_LOOK_SECONDS = 20.0, 0.002
RETRY_SECONDS = 10  # told to clients while the archive cannot be reached
# The largest stream, relative to its session's disk limit. Streams are authentic, so this only bounds our mistakes.
LARGEST_FACTOR, LARGEST_REST = 4, 256 * MB
LARGEST_LAYER = 1 << 20  # MB
# Why a volume is not in the archive now. A faulty archive may have lost what it has just taken.
UNSAVED = (ArchiveUnavailable, ObjectMissing, Damaged, VolumeUnsendable, VolumeLost, errors.Unavailable)


class Interrupted(Exception):
    """The transfer gave way to a wake or a delete, or the server stops. Never shown."""


@dataclass(slots=True)
class Numbers:
    """Counts since the server started. Bytes are those of the volumes, not of the objects."""

    saved: int = 0
    saved_bytes: int = 0
    saves_failed: int = 0
    restored: int = 0
    restored_bytes: int = 0
    damaged: int = 0  # snapshots that could not be used

    def sent(self, size: int) -> None:
        self.saved_bytes += size

    def received(self, size: int) -> None:
        self.restored_bytes += size


class Owner(Protocol):
    """A session or a layer."""

    @property
    def id(self) -> str: ...

    @property
    def key(self) -> str:
        """Wrapped, see `sealing`."""
        ...

    @property
    def volume(self) -> str:
        """The id of its volume."""
        ...


class LayerDamaged(Exception):
    """The layer is not on this host, and the archive does not have it whole. Never shown as it is."""


class Transfer:
    """One volume on its way. Another thread may interrupt it."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()
        self._lock = threading.Lock()
        self._stream: Generator[bytes] | None = None

    def open(self, stream: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """The pieces of the stream. Raises Interrupted."""
        with self._lock:
            self.check()
            self._stream = _pieces(stream())
        return self.watch(self._stream)

    def watch(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces. Raises Interrupted, so an interrupted stream never looks complete."""
        try:
            for piece in pieces:
                self.check()
                yield piece
        except ValueError:  # the stream is being closed by `interrupt`
            self.check()
            raise
        self.check()

    def check(self) -> None:
        """Raises Interrupted."""
        if self._interrupted.is_set():
            raise Interrupted

    def interrupt(self) -> None:
        """When this returns, nothing reads the volume any more, even if the archive does not answer.

        Blocking. Raises Unavailable when the host does not let go of the stream.
        """
        self._interrupted.set()
        self.close()

    def close(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        pause = threading.Event()
        for _ in range(int(INTERRUPT_SECONDS / INTERRUPT_LOOK_SECONDS)):
            try:
                if stream is not None:
                    stream.close()
            except ValueError:  # the generator is running
                pause.wait(INTERRUPT_LOOK_SECONDS)
            else:
                return
        raise errors.Unavailable("The session's files are still being read.", RETRY_SECONDS)


class Threads:
    """A thread for each piece of work. Nothing waits for a thread that hangs, not even the end of the program."""

    def __init__(self) -> None:
        self._closed = False
        self._awaited: set[asyncio.Future[object]] = set()

    async def run[T, *Ts](self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Returns or raises what `work` does. Raises Interrupted as soon as this is closed."""
        if self._closed:
            raise Interrupted
        loop, outcome = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def settle(result: T | None, failure: BaseException | None) -> None:
            if outcome.done():
                return
            if failure is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(failure)

        def body() -> None:
            result, failure = None, None
            try:
                result = work(*args)
            except BaseException as raised:  # noqa: BLE001 - handed over whole, raised at the caller
                failure = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, failure)

        self._awaited.add(outcome)
        try:
            threading.Thread(target=body, name="transfer", daemon=True).start()
            return cast(T, await outcome)
        finally:
            self._awaited.discard(outcome)

    def close(self) -> None:
        self._closed = True
        for outcome in self._awaited:
            if not outcome.done():
                outcome.set_exception(Interrupted())


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

    async def save(self, owner: Owner, transfer: Transfer) -> SavedVolume:
        """Archives the volume of the owner, which no sandbox uses, and reads the object back.

        `tidy` leaves the object alone until the caller calls `named`. Raises Interrupted, ArchiveUnavailable, Damaged,
        and what `Volumes.send` raises; then no object is left.
        """
        taken_at = int(self._clock())
        name = f"{owner.id}/{taken_at:010d}-{secrets.token_hex(6)}"
        self._unnamed.add(name)
        try:
            async with self._saves:
                size = await self._threads.run(self._save, owner, name, transfer)
        except BaseException:
            self._unnamed.discard(name)
            self.numbers.saves_failed += 1
            raise
        self.numbers.saved += 1
        return SavedVolume(name, size, taken_at)

    def named(self, saved: SavedVolume) -> None:
        """The store names the object now, or never will."""
        self._unnamed.discard(saved.name)

    def _save(self, owner: Owner, name: str, transfer: Transfer) -> int:
        """Returns the object's size in bytes. Blocking."""
        key, label = self._vault.unwrap(owner.id, owner.key), _label(owner, name)
        put, back = _Count(), _Count()
        try:
            volume = _counted(transfer.open(lambda: self._volumes.send(owner.volume)), self.numbers.sent)
            reached("archive: sending")
            self._archive.put(name, _counted(seal(key, label, compress(volume)), put))
        finally:
            transfer.close()
        reached("archive: put")
        try:
            for _ in unseal(key, label, _counted(transfer.watch(self._archive.get(name)), back)):
                pass
            if back.total != put.total:
                raise Damaged(f"{put.total} bytes were put, {back.total} read back")
        except BaseException:
            with suppress(ArchiveUnavailable):  # then `Archiving.sweep` removes it
                self._archive.delete(name)
            raise
        reached("archive: verified")
        return put.total

    # --- restoring ---

    async def restore(self, session: Session) -> Session:
        """Puts the volume on this host from the newest saved one that is whole, and returns the session with that one
        as its newest.

        Raises Unavailable when the archive cannot be reached or the host has no room, SessionDamaged when none is whole
        or there never was one.
        """
        if session.saved is None:
            raise errors.SessionDamaged("The session's files are not on this host any more.", reason="volume_lost")
        for saved in (session.saved, session.previous):
            if saved is None:
                continue
            try:
                await self._restore(session, saved, session.limits.disk)
            except (Damaged, ObjectMissing, ValueError) as wrong:
                self._note_damage(session, saved, wrong)
                continue
            if saved is session.saved:
                return session
            log.error("previous_snapshot_used", session=session.id, object=saved.name, taken_at=saved.taken_at)
            return replace(session, saved=saved, previous=None)
        raise errors.SessionDamaged(
            "The session's files cannot be brought back: no snapshot of them is whole.", reason="snapshot_damaged"
        )

    async def restore_layer(self, layer: Layer) -> None:
        """Puts the layer on this host. Raises Unavailable as `restore` does, and LayerDamaged."""
        if layer.saved is None:
            raise LayerDamaged
        try:
            await self._restore(layer, layer.saved, None)
        except (Damaged, ObjectMissing, ValueError) as wrong:
            self._note_damage(layer, layer.saved, wrong)
            raise LayerDamaged from wrong

    def _note_damage(self, owner: Owner, saved: SavedVolume, wrong: Exception) -> None:
        self.numbers.damaged += 1
        log.error("snapshot_damaged", owner=owner.id, object=saved.name, reason=repr(wrong))

    async def _restore(self, owner: Owner, saved: SavedVolume, disk: int | None) -> None:
        with self.transfer(owner.id) as transfer:
            try:
                async with self._restores:
                    await self._threads.run(self._receive, owner, saved, disk, transfer)
            except Interrupted:
                raise errors.Unavailable("The files are being deleted, or the server stops.", 2) from None
            except ArchiveUnavailable as away:
                log.warning("archive_unavailable", owner=owner.id, reason=str(away))
                raise errors.Unavailable(
                    "The archive that holds the session's files cannot be reached.", RETRY_SECONDS
                ) from away
        self.numbers.restored += 1

    def _receive(self, owner: Owner, saved: SavedVolume, disk: int | None, transfer: Transfer) -> None:
        """Blocking. `disk`: the limit in MB; None: of a layer."""
        key, label = self._vault.unwrap(owner.id, owner.key), _label(owner, saved.name)
        largest = LARGEST_FACTOR * (LARGEST_LAYER if disk is None else disk) * MB + LARGEST_REST
        transfer.check()
        reached("restore: begun")
        stored = transfer.watch(self._archive.get(saved.name))
        volume = _counted(decompress(unseal(key, label, stored), largest), self.numbers.received)
        self._volumes.receive(owner.volume, disk, volume)
        reached("restore: received")

    # --- removing ---

    async def tidy(self, owner: Owner, named: Iterable[SavedVolume | None]) -> None:
        """Removes objects of the owner that the store does not name, as far as that is possible now."""
        keep = {saved.name for saved in named if saved is not None}
        try:
            await asyncio.to_thread(self._remove, owner.id, keep | self._unnamed)
        except ArchiveUnavailable as away:
            log.warning("archive_not_tidied", owner=owner.id, reason=str(away))

    async def remove(self, owner_id: str) -> None:
        """Removes every object of an owner. Idempotent. Raises Unavailable, also while one is being put there."""
        if any(name.startswith(f"{owner_id}/") for name in self._unnamed):
            raise errors.Unavailable("An object is still being put into the archive.", RETRY_SECONDS)
        try:
            await asyncio.to_thread(self._remove, owner_id, set())
        except ArchiveUnavailable as away:
            raise errors.Unavailable(f"The archive cannot be reached: {away}", RETRY_SECONDS) from away

    def _remove(self, owner_id: str, keep: set[str]) -> None:
        for name in self._archive.names(f"{owner_id}/"):
            if name not in keep:
                self._archive.delete(name)

    async def owners(self) -> set[str]:
        """Ids of sessions and layers that have objects; the store may not know them. Raises ArchiveUnavailable."""
        names = await asyncio.to_thread(self._archive.names, "")
        return {name.partition("/")[0] for name in names}


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


def _pieces(stream: Iterator[bytes]) -> Generator[bytes]:
    yield from stream


def _label(owner: Owner, name: str) -> bytes:
    """An object opens only with the label that it was sealed with."""
    return f"{owner.id} {name}".encode()
