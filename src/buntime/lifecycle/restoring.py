"""Puts a session's files back to those of a snapshot.

One stored change gives the session its new volume. Before it, the session is as it was; after it, it is in deep sleep
with the new files. What is left over on either side is an orphan, which the next start removes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.ids import new_snapshot_id, new_volume_id
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.metering import Metering
from buntime.lifecycle.monitor import Monitor
from buntime.lifecycle.records import no_sandbox
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.transitions import Transitions
from buntime.ports import Answer, Sandboxes, Store
from buntime.session import Session, State
from buntime.snapshot import BEFORE_RESTORE, BEFORE_RESTORE_SECONDS, Layer, Snapshot

log = structlog.get_logger()

REST_SECONDS = 0.1  # a wake comes first

type AnswerTo = Callable[[Session], Answer]


class Restoring:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        archiving: Archiving,
        layers: Layers,
        transitions: Transitions,
        changes: Changes,
        holds: Holds,
        tasks: Tasks,
        clock: Callable[[], float],
        monitor: Monitor,
        metering: Metering,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._archiving = archiving
        self._layers = layers
        self._transitions = transitions
        self._changes = changes
        self._holds = holds
        self._tasks = tasks
        self._clock = clock
        self._monitor = monitor
        self._metering = metering

    async def restore(self, session_id: str, snapshot: Snapshot, answer: AnswerTo | None) -> Session:
        """Gives the session the files and the image of the snapshot, whose layer is on this host. Returns it as it was
        before, with the new files. It is in deep sleep then.

        `answer` returns what is stored together with the change. Raises SessionNotFound, SessionBusy while a request
        uses the session, VolumeLost when the layer is not here, and Unavailable.
        """
        started = time.perf_counter()
        await self._holds.spent(session_id)
        await self._transitions.adopted(session_id)
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if self._holds.in_use(session_id):
                raise errors.SessionBusy("The session is in use. Try again when its requests have ended.")
            await self._transitions.on_wake_started(session_id)
            await self._saving.interrupt(session_id)
            volume = new_volume_id()
            # the disk is busy with it while processes end
            copying = asyncio.ensure_future(self._sandboxes.volumes.copy(snapshot.layer, volume, session.limits.disk))
            try:
                restored = await self._in_place_of(session, snapshot, volume, copying, answer)
            except errors.CommitUnknown:
                raise  # the same as when cancelled
            except Exception:  # not when cancelled: it may be stored then, and the next start decides
                await asyncio.wait((copying,))
                if not copying.cancelled() and copying.exception() is None:
                    await self._layers.discard(volume)
                raise
        self._monitor.restored(time.perf_counter() - started)
        log.info("session_restored", session=session_id, snapshot=snapshot.id)
        self._tasks.start(self._clean_up(session), f"clean up after restore of {session_id}")
        return restored

    async def _in_place_of(
        self, session: Session, snapshot: Snapshot, volume: str, copying: Awaitable[None], answer: AnswerTo | None
    ) -> Session:
        """Ends the session's processes, keeps what it has, and gives it the volume, which is being made."""
        sandbox = await self._sandboxes.get(session.sandbox)
        if sandbox is not None and not await sandbox.quiesce(durable=False):  # what is kept of it is captured
            raise errors.Unavailable("The session's processes could not be ended just now.", 2)
        reached("restore: quiet")
        try:
            before = await self._layers.capture_volume(session)
            try:
                await copying
                reached("restore: copied")
                restored = await self._stored(session, snapshot, volume, before, answer)
            except errors.CommitUnknown:
                raise
            except Exception:
                await self._layers.discard(before.id)
                raise
        except BaseException:
            if sandbox is not None and session.state is State.ACTIVE:
                await sandbox.thaw()
            raise
        reached("restore: stored")
        return restored

    async def _stored(
        self, session: Session, snapshot: Snapshot, volume: str, before: Layer, answer: AnswerTo | None
    ) -> Session:
        used = await self._metering.read(session)
        while True:
            restored = replace(
                session.down(),
                # what is left of the old one is removed while the next one starts
                sandbox=no_sandbox(is_foreign=snapshot.session != session.id),
                volume=volume,
                image=snapshot.image,
                image_name=snapshot.image_name,
                saved=None,
                previous=None,
                archived=False,
            )
            kept, told = _before_restore(session, before), answer and answer(restored)
            try:
                events = self._changes.events_of(session, restored)
                return await self._store.restore_session(
                    session, restored, kept, before, told, events=events, reading=used
                )
            except errors.StaleSession:  # a PATCH came first
                session = await self._changes.present(session.id)

    async def _clean_up(self, before: Session) -> None:
        """Ends what is left of the session as it was: its frozen processes, its volume, what the archive has of it."""
        await asyncio.sleep(REST_SECONDS)
        await self._sandboxes.kill(before.sandbox)
        await self._sandboxes.disconnect(before.sandbox)  # the other end may never have been told
        reached("restore: stopped")
        await self._sandboxes.destroy(before)
        await self._archiving.tidy(before.id)
        self._layers.look_soon()


def _before_restore(session: Session, layer: Layer) -> Snapshot:
    return Snapshot(
        id=new_snapshot_id(),
        account=session.account,
        session=session.id,
        layer=layer.id,
        image=session.image,
        image_name=session.image_name,
        size=layer.size,
        created_at=layer.created_at,
        expires_at=layer.created_at + BEFORE_RESTORE_SECONDS,
        name=BEFORE_RESTORE,
        is_automatic=True,
    )
