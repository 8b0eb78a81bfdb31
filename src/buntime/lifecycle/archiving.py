"""Volumes of sessions in deep sleep: saved to the archive, then removable from this host.

A wake comes first: it interrupts a save, which the keeper tries again after the next deep sleep.
"""

import asyncio
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.ids import LAYER_PREFIX
from buntime.lifecycle import chains
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.saving import UNSAVED, Saving
from buntime.lifecycle.transfers import Interrupted, Transfer
from buntime.ports import ArchiveUnavailable, Owners, Sandboxes, Store, VolumeUnsendable
from buntime.session import SavedVolume, Session, State

log = structlog.get_logger()


class Archiving:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        changes: Changes,
        holds: Holds,
        owners: Owners,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._changes = changes
        self._holds = holds
        self._owners = owners
        self._tasks = tasks
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unsendable: set[str] = set()  # a volume that cannot be archived does not change until the session wakes

    def start(self, session_id: str) -> None:
        """Begins `archive` in the background."""
        self._tasks.start(self._archive(session_id), f"archive {session_id}")

    async def archive(self, session_id: str) -> bool:
        """Saves the volume of a session in deep sleep. Returns False when it should be tried again later.

        Callers that come together share one save.
        """
        return await self._tasks.finish(self._archive(session_id), f"archive {session_id}")

    async def evict(self, session_id: str) -> None:
        """Removes the volume of a session in deep sleep from this host, if it is archived."""
        await self._tasks.finish(self._evict(session_id), f"evict {session_id}")

    async def sweep(self) -> None:
        """At start: removes objects of the archive that a killed server left without a name in the store.

        Objects of sessions that the store does not know are counted in the log and left alone: the store may be an
        older copy.
        """
        try:
            owners = await self._saving.owners()
        except ArchiveUnavailable as away:
            log.warning("archive_not_swept", reason=str(away))
            return
        unknown = 0
        for session_id in owners:
            if session_id.startswith(LAYER_PREFIX):  # see `Layers.keep`
                continue
            unknown += not await self.tidy(session_id)
        if unknown:
            log.warning("archive_of_unknown_sessions", count=unknown)

    async def tidy(self, session_id: str) -> bool:
        """Removes objects of a session of this host that the store does not name. Returns False for an unknown one."""
        async with self.one_save(session_id):  # an object that is being saved has no name yet
            session = await self._store.get_session(session_id)
            if session is None:
                return False
            if self._owners.is_mine(session) and session.state is not State.DELETING:  # else a host may be saving it
                await self._saving.tidy(session, (session.saved, session.previous))
            return True

    def forget(self, session_id: str) -> None:
        """The session woke, so its volume may change, or it is gone."""
        self._unsendable.discard(session_id)

    async def _archive(self, session_id: str) -> bool:
        async with self.one_save(session_id):
            with self._saving.transfer(session_id) as transfer:
                try:
                    session = await self._begin(session_id)
                    if session is None:
                        return session_id not in self._unsendable
                    session = await self._save(session, transfer)
                except (Interrupted, errors.SessionNotFound):
                    return True
                except UNSAVED as failed:
                    if isinstance(failed, VolumeUnsendable):
                        self._unsendable.add(session_id)
                    log.warning("session_not_archived", session=session_id, reason=str(failed) or repr(failed))
                    return False
            reached("archive: named")
            await self._clean_up(session)
        if session.saved is not None and chains.is_long(session.saved):
            self._tasks.start(self._fold(session_id), f"fold the archive of {session_id}")
        return True

    async def _fold(self, session_id: str) -> None:
        """Replaces a chain by a full object of the same state. When that fails or gives way to a wake, the chain stays,
        and the next deep sleep begins this again."""
        async with self.one_save(session_id):
            with self._saving.transfer(session_id) as transfer:
                try:
                    async with self._holds.lock(session_id):
                        session = await self._changes.present(session_id)
                    if not _is_foldable(session) or not self._sandboxes.volumes.exists(session.volume):
                        return
                    reached("fold: begun")
                    session = await self._save(session, transfer, whole=True)
                except (Interrupted, errors.SessionNotFound):
                    return
                except UNSAVED as failed:
                    log.warning("chain_not_folded", session=session_id, reason=str(failed) or repr(failed))
                    return
            reached("fold: named")
            await self._clean_up(session)

    async def _save(self, session: Session, transfer: Transfer, *, whole: bool = False) -> Session:
        """Saves the volume and names what is saved. Otherwise as `Saving.save`."""
        saved = await self._saving.save(session, transfer, session.saved, whole=whole)
        return await self._name(session, saved, transfer)

    async def _clean_up(self, session: Session) -> None:
        await self._saving.keep_parent(session, session.saved)
        reached("archive: parent dropped")
        await self._saving.tidy(session, (session.saved, session.previous))
        reached("archive: tidied")

    async def _begin(self, session_id: str) -> Session | None:
        """The session with a key, its sandbox stopped. None when there is nothing to archive."""
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if session.state is not State.DEEP_SLEEP or session.archived or session_id in self._unsendable:
                return None
            if session.volume not in self._sandboxes.volumes.cached():
                await self._sandboxes.stop(session)
            session = await self._changes.change(session_id, self._saving.with_key)
            reached("archive: key stored")
            return session

    async def _name(self, before: Session, saved: SavedVolume, transfer: Transfer) -> Session:
        """From now on a wake can rely on the saved volume. Raises Interrupted; then it stays unnamed."""
        async with self._holds.lock(before.id):
            try:
                transfer.check()
                return await self._changes.change(before.id, partial(_archived, saved=saved, volume=before.volume))
            except BaseException:
                if (session := await self._store.get_session(before.id)) is not None:
                    await self._saving.keep_parent(session, session.saved)
                raise
            finally:
                self._saving.named(saved)

    async def _evict(self, session_id: str) -> None:
        if self.one_save(session_id).locked():
            return  # a fold reads the volume: the next look finds it again
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            # a volume that was lost and is back is newer than a checkpoint
            is_newer = session.saved is not None and session.saved.is_checkpoint
            if session.state is State.DEEP_SLEEP and session.archived and not is_newer:
                await self._sandboxes.volumes.remove(session.volume)
                reached("evict: done")
                log.info("volume_evicted", session=session_id)

    def one_save(self, session_id: str) -> asyncio.Lock:
        """Held while the session is saved, so that its saves come one at a time."""
        return self._locks.setdefault(session_id, asyncio.Lock())


def _archived(session: Session, saved: SavedVolume, volume: str) -> Session:
    """Raises Interrupted when the session has other files now: it may have moved and come back."""
    if session.volume != volume:
        raise Interrupted
    return replace(session, saved=saved, previous=session.saved, archived=True)


def _is_foldable(session: Session) -> bool:
    is_at_rest = session.state is State.DEEP_SLEEP and session.archived
    return is_at_rest and session.saved is not None and chains.is_long(session.saved)
