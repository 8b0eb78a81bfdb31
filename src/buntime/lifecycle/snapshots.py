"""Volumes of sleeping sessions: into the archive, and back.

A snapshot is one object: the stream of the volume, compressed, then sealed with the session's own key
under the object's own name. It counts only when it was read back whole. Transfers run in threads of their
own and hold no more than a few pieces; a save gives way to a wake at any moment.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self, cast

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.lifecycle.packing import compress, decompress
from buntime.lifecycle.sealing import Damaged, Vault, seal, unseal
from buntime.plan import MB
from buntime.ports import Archive, ArchiveUnavailable, ObjectMissing, Sandboxes
from buntime.session import Session, Snapshot

log = structlog.get_logger()

SAVES_AT_ONCE, RESTORES_AT_ONCE = 2, 4
INTERRUPT_SECONDS, INTERRUPT_LOOK_SECONDS = 20.0, 0.002
RETRY_SECONDS = 10  # told to clients while the archive cannot be reached
# Of a stream, beside its session's disk limit. What gets here is authentic: it bounds a mistake of ours.
LARGEST_FACTOR, LARGEST_REST = 4, 256 * MB


class Interrupted(Exception):
    """The transfer gave way to something else, or the server stops. Never shown."""


@dataclass(slots=True)
class Numbers:
    """Since the server started; bytes as the volumes have them."""

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


class Transfer:
    """One volume on its way, which another thread may interrupt."""

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
        """The same pieces. Raises Interrupted: an interrupted stream never looks like one that has ended."""
        for piece in pieces:
            self.check()
            yield piece
        self.check()

    def check(self) -> None:
        """Raises Interrupted."""
        if self._interrupted.is_set():
            raise Interrupted

    def interrupt(self) -> None:
        """Nothing reads the volume any more when this returns, even if the archive does not answer.

        Blocking. Raises Unavailable where the host does not let go of the stream.
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
            except ValueError:  # it is giving a piece just now
                pause.wait(INTERRUPT_LOOK_SECONDS)
            else:
                return
        raise errors.Unavailable("The session's files are still being read.", RETRY_SECONDS)


class Threads:
    """A thread for each piece of work. Nobody has to wait for one that hangs, not even the end of the program."""

    def __init__(self) -> None:
        self._closed = False
        self._awaited: set[asyncio.Future[object]] = set()

    async def run[T, *Ts](self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """What `work` returns or raises; Interrupted as soon as this is closed."""
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
            with suppress(RuntimeError):  # the loop is closed: there is nobody to tell
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


class Snapshots:
    """Saves and restores volumes. Leaving the block interrupts what is under way: the next server begins it again."""

    def __init__(self, archive: Archive, vault: Vault, sandboxes: Sandboxes, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._vault = vault
        self._sandboxes = sandboxes
        self._clock = clock
        self._transfers: dict[str, Transfer] = {}  # by session
        self._unnamed: set[str] = set()  # objects that are being made
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
        """Volumes."""
        return len(self._transfers)

    def with_key(self, session: Session) -> Session:
        """The session with a key of its own, which must be stored before anything is sealed with it."""
        return session if session.key else replace(session, key=self._vault.new_key(session.id))

    @contextmanager
    def transfer(self, session_id: str) -> Iterator[Transfer]:
        """From now on `interrupt` finds it."""
        transfer = self._transfers[session_id] = Transfer()
        try:
            yield transfer
        finally:
            if self._transfers.get(session_id) is transfer:
                del self._transfers[session_id]

    async def interrupt(self, session_id: str) -> None:
        """Nothing reads or makes the session's volume any more when this returns. Raises Unavailable."""
        transfer = self._transfers.get(session_id)
        if transfer is not None:
            await asyncio.to_thread(transfer.interrupt)

    # --- saving ---

    async def save(self, session: Session, transfer: Transfer) -> Snapshot:
        """Archives the volume of the session's stopped sandbox, and reads the object back. It stays among those that
        `tidy` leaves alone until `named`.

        Raises Interrupted, ArchiveUnavailable, Damaged, and what `Sandboxes.send` raises; then no object is left.
        """
        taken_at = int(self._clock())
        name = f"{session.id}/{taken_at:010d}-{secrets.token_hex(6)}"
        self._unnamed.add(name)
        try:
            async with self._saves:
                size = await self._threads.run(self._save, session, name, transfer)
        except BaseException:
            self._unnamed.discard(name)
            self.numbers.saves_failed += 1
            raise
        self.numbers.saved += 1
        return Snapshot(name, size, taken_at)

    def named(self, snapshot: Snapshot) -> None:
        """The store has it now, or never will."""
        self._unnamed.discard(snapshot.name)

    def _save(self, session: Session, name: str, transfer: Transfer) -> int:
        """Bytes as stored. Blocking."""
        key, label = self._vault.unwrap(session.id, session.key), _label(session, name)
        put, back = _Count(), _Count()
        try:
            volume = _counted(transfer.open(lambda: self._sandboxes.send(session.sandbox)), self.numbers.sent)
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
            with suppress(ArchiveUnavailable):  # then `sweep` removes it
                self._archive.delete(name)
            raise
        reached("archive: verified")
        return put.total

    # --- restoring ---

    async def restore(self, session: Session) -> Session:
        """Puts the volume on this host, from the newest snapshot that is whole; the session with that as its newest.

        Raises Unavailable where the archive cannot be reached or the host has no room, SessionDamaged where no snapshot
        is whole.
        """
        for snapshot in (session.snapshot, session.previous):
            if snapshot is None:
                continue
            try:
                await self._restore(session, snapshot)
            except (Damaged, ObjectMissing, ValueError) as wrong:
                self.numbers.damaged += 1
                log.error("snapshot_damaged", session=session.id, object=snapshot.name, reason=repr(wrong))
                continue
            if snapshot is session.snapshot:
                return session
            log.error("previous_snapshot_used", session=session.id, object=snapshot.name, taken_at=snapshot.taken_at)
            return replace(session, snapshot=snapshot, previous=None)
        raise errors.SessionDamaged(
            "The session's files cannot be brought back: no snapshot of them is whole.", reason="snapshot_damaged"
        )

    async def _restore(self, session: Session, snapshot: Snapshot) -> None:
        with self.transfer(session.id) as transfer:
            try:
                async with self._restores:
                    await self._threads.run(self._receive, session, snapshot, transfer)
            except Interrupted:
                raise errors.Unavailable("The session is being deleted, or the server stops.", 2) from None
            except ArchiveUnavailable as away:
                log.warning("archive_unavailable", session=session.id, reason=str(away))
                raise errors.Unavailable(
                    "The archive that holds the session's files cannot be reached.", RETRY_SECONDS
                ) from away
        self.numbers.restored += 1

    def _receive(self, session: Session, snapshot: Snapshot, transfer: Transfer) -> None:
        """Blocking."""
        key, label = self._vault.unwrap(session.id, session.key), _label(session, snapshot.name)
        largest = LARGEST_FACTOR * session.limits.disk * MB + LARGEST_REST
        transfer.check()
        reached("restore: begun")
        stored = transfer.watch(self._archive.get(snapshot.name))
        volume = _counted(decompress(unseal(key, label, stored), largest), self.numbers.received)
        self._sandboxes.receive(session, volume)
        reached("restore: received")

    # --- removing ---

    async def tidy(self, session: Session) -> None:
        """Removes the session's objects that nothing names. What cannot be removed now stays for the next time."""
        named = {snapshot.name for snapshot in (session.snapshot, session.previous) if snapshot}
        try:
            await asyncio.to_thread(self._remove, session.id, named | self._unnamed)
        except ArchiveUnavailable as away:
            log.warning("archive_not_tidied", session=session.id, reason=str(away))

    async def remove(self, session_id: str) -> None:
        """Removes every object of a session. Idempotent. Raises Unavailable, also while one is on its way there."""
        if any(name.startswith(f"{session_id}/") for name in self._unnamed):
            raise errors.Unavailable("An object of the session is still being put into the archive.", RETRY_SECONDS)
        try:
            await asyncio.to_thread(self._remove, session_id, set())
        except ArchiveUnavailable as away:
            raise errors.Unavailable(f"The archive cannot be reached: {away}", RETRY_SECONDS) from away

    def _remove(self, session_id: str, keep: set[str]) -> None:
        for name in self._archive.names(f"{session_id}/"):
            if name not in keep:
                self._archive.delete(name)

    async def owners(self) -> set[str]:
        """Ids of sessions that have objects, whether they are known or not. Raises ArchiveUnavailable."""
        names = await asyncio.to_thread(self._archive.names, "")
        return {name.partition("/")[0] for name in names}


class _Count:
    """Called with sizes: their sum."""

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


def _label(session: Session, name: str) -> bytes:
    """What an object is sealed for: it opens as nothing else."""
    return f"{session.id} {name}".encode()
