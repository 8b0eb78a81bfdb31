"""Layers: captured from sessions, brought to this host, saved in the archive, and removed when nothing refers to them.

A layer that a request has just made is in no store yet. After a crash it is an orphan, which the next start removes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.ids import LAYER_PREFIX, new_layer_id
from buntime.image import MADE_PREFIX
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.monitor import Monitor
from buntime.lifecycle.progress import Progress
from buntime.lifecycle.saved_images import DefaultImages, SharedImages
from buntime.lifecycle.saving import UNSAVED, LayerDamaged, Saving
from buntime.lifecycle.transfers import Interrupted
from buntime.plan import MB
from buntime.ports import ArchiveUnavailable, Owners, Sandboxes, Store, VolumeLost
from buntime.session import Session, State
from buntime.snapshot import Layer, MadeImage

log = structlog.get_logger()

FETCH_SECONDS = 8.0  # a request waits this long for the archive
STOP_SECONDS = 5.0  # for a fetch that was interrupted
TRIES = 3  # the session may lose its volume between two steps, by an eviction or a restore
TICK_SECONDS, PAUSE_SECONDS = 60.0, 0.5
SAVE_AFTER = 600  # seconds after which a layer is saved that nobody asked to be: of a restore
CAPTURE_SECONDS = 3600.0  # after which a layer that was captured here and is in no store never will be
FORK_SECONDS = 3600  # for which a fork that a crash interrupted can go on with its layer


class Layers:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        changes: Changes,
        holds: Holds,
        owners: Owners,
        tasks: Tasks,
        clock: Callable[[], float],
        monitor: Monitor,
        defaults: DefaultImages | None = None,
    ) -> None:
        """`defaults`: None where there is no other host."""
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._changes = changes
        self._holds = holds
        self._owners = owners
        self._tasks = tasks
        self._clock = clock
        self._monitor = monitor
        self._fetching: dict[str, asyncio.Future[None]] = {}  # by layer or session
        self._saves: set[str] = set()  # layers that are being saved
        self._used: dict[str, float] = {}  # layer → when it was last asked for, on the loop's clock
        self._captured: dict[str, float] = {}  # layer → when this host made it, on the same clock
        self._in_use: Counter[str] = Counter()  # layers that stay on this host
        self._removing = asyncio.Lock()  # one at a time: what is being removed is not in use
        self._due = asyncio.Event()
        self.shared = SharedImages(store, sandboxes.roots, saving.images, owners, defaults)

    # --- making ---

    async def capture(self, session_id: str) -> tuple[Session, Layer]:
        """The session, and a new layer with its files as they are now, which no store has yet. The session is not
        woken. Raises SessionNotFound, SessionDamaged, Unavailable."""
        for _ in range(TRIES):
            await self.bring_volume(session_id)
            session = await self._changes.present(session_id)
            with suppress(VolumeLost):
                async with self._holds.copying(session_id):
                    return session, await self.capture_volume(session)
        raise errors.Unavailable("The session's files are being moved just now.", 1)

    async def capture_volume(self, session: Session) -> Layer:
        """A new layer of the session's volume. Raises VolumeLost and Unavailable."""
        layer_id, started = new_layer_id(), time.perf_counter()
        self._captured[layer_id] = asyncio.get_running_loop().time()
        size = await self._sandboxes.volumes.capture(session.volume, layer_id)
        reached("capture: captured")
        self._monitor.captured(time.perf_counter() - started)
        return Layer(
            id=layer_id,
            account=session.account,
            image=session.image,
            size=min(size, session.limits.disk * MB),  # a session that shares files may hold a little more for a moment
            created_at=int(self._clock()),
            key=self._saving.new_key(layer_id),
        )

    async def discard(self, layer_id: str) -> None:
        """Removes a layer that no store has. If that is not possible now, a later look or the next start does it."""
        with suppress(errors.Unavailable):  # it is in the log
            await self._sandboxes.volumes.remove(layer_id)
            self._forget(layer_id)

    def _forget(self, layer_id: str) -> None:
        """It is not on this host any more."""
        self._used.pop(layer_id, None)
        self._captured.pop(layer_id, None)

    # --- bringing here ---

    async def bring(self, layer_id: str) -> None:
        """When this returns, the layer is on this host. Raises VolumeLost when the layer is unknown, SnapshotDamaged,
        StillFetching and Unavailable."""
        self._used[layer_id] = asyncio.get_running_loop().time()
        if not self._sandboxes.volumes.exists(layer_id):
            await self._wait_for(layer_id, self._fetch_layer)

    async def is_only_here(self, layer_id: str) -> bool:
        """Whether this host has a layer that the archive does not have yet."""
        if self._owners.is_alone or not self._sandboxes.volumes.exists(layer_id):
            return False
        layer = await self._store.get_layer(layer_id)
        return layer is not None and layer.saved is None

    @asynccontextmanager
    async def using(self, layer_id: str) -> AsyncIterator[None]:
        """The same, and within the block it stays here. Raises as `bring`."""
        async with self._removing:
            self._in_use[layer_id] += 1
        try:
            await self.bring(layer_id)
            yield
        finally:
            self._in_use[layer_id] -= 1
            if not self._in_use[layer_id]:
                del self._in_use[layer_id]

    async def bring_volume(self, session_id: str) -> None:
        """When this returns, the session's volume is on this host.

        Raises SessionNotFound, SessionDamaged, StillFetching and Unavailable.
        """
        session = await self._changes.present(session_id)
        if not self._sandboxes.volumes.exists(session.volume):
            await self._wait_for(session_id, self._fetch_volume)

    async def bring_image(self, image_id: str) -> None:
        """The same for all layers of an image that an account has made, and its bases. Others have none. This host
        knows the image then, also if another host has made it."""
        chain = [made async for made in self._below(image_id)]
        lowest = chain[-1].base if chain else image_id
        if not self.shared.is_here(lowest):
            await self._wait_for(lowest, self.shared.fetch)
        for made in chain:
            await self.bring(made.layer)
        if not self._owners.is_alone:
            for made in reversed(chain):
                await self._know(made)

    async def _know(self, made: MadeImage) -> None:
        """Raises Unavailable where no session of this host could stand on the image."""
        try:
            await self._sandboxes.know(made)
        except ValueError as wrong:
            log.error("image_not_usable", image=made.id, reason=str(wrong))
            raise errors.Unavailable("This host cannot use the image that the session stands on.", 60) from wrong

    async def progress(self, session: Session) -> Progress:
        """Of the restores that a wake of the session waits for."""
        layers = []
        with suppress(VolumeLost):
            layers = [made.layer async for made in self._below(session.image)]
        return self._saving.restores.of([session.id, *layers])

    async def _below(self, image_id: str) -> AsyncIterator[MadeImage]:
        """The image, if an account has made it, and those below it. Raises VolumeLost."""
        while image_id.startswith(MADE_PREFIX):
            made = await self._store.get_made_image(image_id)
            if made is None:
                raise VolumeLost(image_id)
            yield made
            image_id = made.base

    async def _wait_for(self, owner_id: str, work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Waits a while for a fetch that callers share."""
        fetch = self._fetching.get(owner_id)
        if fetch is None:
            finished = self._tasks.finish(work(owner_id), f"fetch {owner_id}")
            fetch = self._fetching[owner_id] = asyncio.ensure_future(finished)
            fetch.add_done_callback(lambda done: self._fetched(owner_id, done))
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                await asyncio.shield(fetch)
        except TimeoutError:
            progress = self._saving.restores.of([owner_id])
            raise errors.StillFetching(progress.retry_after(FETCH_SECONDS, 2), **progress.details()) from None

    def _fetched(self, owner_id: str, fetch: asyncio.Future[None]) -> None:
        del self._fetching[owner_id]
        if not fetch.cancelled():
            fetch.exception()  # callers may have left

    async def _fetch_volume(self, session_id: str) -> None:
        """Of a session in deep sleep."""
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if self._sandboxes.volumes.exists(session.volume):
                return
            if session.state is not State.DEEP_SLEEP:
                raise self._saving.lost(session)
            restored = await self._saving.restore(session)
            await self._changes.change(
                session_id, lambda s: replace(s, saved=restored.saved, previous=restored.previous)
            )

    async def _fetch_layer(self, layer_id: str) -> None:
        layer = await self._store.get_layer(layer_id)
        if layer is None or layer.is_condemned:
            raise VolumeLost(layer_id)
        if self._sandboxes.volumes.exists(layer_id):
            return
        if layer.saved is None and not self._owners.is_alone:
            raise errors.OnAnotherHost
        try:
            await self._saving.restore_layer(layer)
        except LayerDamaged:
            raise errors.SnapshotDamaged from None

    # --- keeping ---

    def start_saving(self, layer_id: str) -> None:
        """Saves the layer in the archive, in the background."""
        self._tasks.start(self._save(layer_id), f"save {layer_id}")

    async def saves_image(self, image_id: str) -> bool:
        """Whether the archive has all layers of an image, so that any host can stand on it. Begins to save the others.
        Raises Unavailable."""
        with suppress(VolumeLost):
            layers = [await self._store.get_layer(made.layer) async for made in self._below(image_id)]
            unsaved = [layer.id for layer in layers if layer is not None and layer.saved is None]
            for layer_id in unsaved:
                self.start_saving(layer_id)
            return not unsaved
        return True  # no host can wake the session

    async def save_here(self) -> None:
        """Begins to save all layers that this host has and the archive has not. Raises Unavailable."""
        for layer in await self._store.all_layers():
            if layer.saved is None and not layer.is_condemned and self._sandboxes.volumes.exists(layer.id):
                self.start_saving(layer.id)

    def look_soon(self) -> None:
        """Something lost a reference."""
        self._due.set()

    async def keep(self) -> None:
        """For ever: drops what has expired or is not referred to, and saves what is not in the archive."""
        save_after, swept = 0, False  # a killed server may have begun to save any of them
        while True:
            try:
                if not swept:
                    await self.sweep()
                swept = True
                await self.tidy(save_after)
                save_after = SAVE_AFTER
            except errors.BuntimeError as failed:
                log.warning("layers_not_tidied", reason=failed.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._due.wait()
            # many deletions at once are one occasion, and the first requests to a fork come before the disk is busy
            await asyncio.sleep(PAUSE_SECONDS)
            self._due.clear()

    async def tidy(self, save_after: int = SAVE_AFTER) -> None:
        """Once: the same. Saves layers that are older than `save_after` seconds, a few at a time. One host drops for
        all. Each host saves what it has."""
        now = int(self._clock())
        if self._owners.has_duty():
            await self._store.drop_snapshots(now)
            while await self._drop(now):  # an image may be all that referred to the one that it stands on
                pass
        else:
            await self._forget_dropped()
        layers = await self._store.all_layers()
        for layer in layers:
            is_due = layer.saved is None and layer.created_at + save_after <= now
            if is_due and (self._owners.is_alone or self._sandboxes.volumes.exists(layer.id)):
                self.start_saving(layer.id)
        await self._let_go({layer.id for layer in layers})

    async def _let_go(self, stored: Collection[str]) -> None:
        """Removes layers that another host has dropped. What was just captured is in no store yet."""
        young = asyncio.get_running_loop().time() - CAPTURE_SECONDS
        for layer_id in (self._used.keys() | self._captured.keys()) - set(stored):
            if self._captured.get(layer_id, young) > young:
                continue
            if await self._store.get_layer(layer_id) is None:  # it may have been added since
                await self.discard(layer_id)

    async def _forget_dropped(self) -> None:
        """Forgets images that another host has dropped."""
        for image_id in [image for image in self._sandboxes.images() if image.startswith(MADE_PREFIX)]:
            if await self._store.get_made_image(image_id) is None:
                await self._sandboxes.forget(image_id)

    async def _drop(self, now: int) -> bool:
        """Drops images and layers that nothing refers to. Returns whether images were among them."""
        dropped = await self._store.drop_made_images()
        for image_id in dropped:
            if await self._store.get_made_image(image_id) is None:  # else it was made again meanwhile
                await self._sandboxes.forget(image_id)
        for layer in await self._store.condemn_layers(now - FORK_SECONDS):
            await self._remove(layer)
        return bool(dropped)

    async def sweep(self) -> None:
        """At start: removes objects that a killed server left without a name in the store."""
        try:
            for layer_id in await self._saving.owners():
                layer = await self._store.get_layer(layer_id) if layer_id.startswith(LAYER_PREFIX) else None
                if layer is not None and (layer.saved is not None or self._owners.is_alone):  # else a host may save it
                    await self._saving.tidy(layer, (layer.saved,))
        except ArchiveUnavailable as away:
            log.warning("archive_not_swept", reason=str(away))

    async def evict(self, wanted: int) -> bool:
        """Removes layers from this host that are in the archive, those first that were not asked for the longest, until
        their files had `wanted` bytes. Returns whether it removed any. Layers of images stay."""
        volumes, below = self._sandboxes.volumes, {made.layer for made in await self._store.all_made_images()}
        here = [
            layer
            for layer in await self._store.all_layers()
            if layer.saved is not None and not layer.is_condemned and layer.id not in below and volumes.exists(layer.id)
        ]
        freed = 0
        for layer in sorted(here, key=lambda layer: (self._used.get(layer.id, 0.0), layer.created_at)):
            if freed >= wanted:
                break
            with suppress(errors.Unavailable):  # it is in the log, or in use
                await self._remove_volume(layer)
                freed += layer.size
                log.info("layer_evicted", layer=layer.id)
        return freed > 0

    async def _remove_volume(self, layer: Layer) -> None:
        """From this host. Raises Unavailable, also while it is in use."""
        async with self._removing:
            if layer.id in self._in_use:
                raise errors.Unavailable("The layer is in use.")
            await self._sandboxes.volumes.remove(layer.id)

    async def sole_bytes(self, account_id: str, layers: Collection[Layer]) -> int:
        """Bytes that these layers keep and no session of the account has, on this host or in the archive."""
        volumes = self._sandboxes.volumes
        here = {layer.id for layer in layers if volumes.exists(layer.id)}
        sessions = await self._store.account_sessions(account_id)
        archived = sum(layer.saved.size for layer in layers if layer.id not in here and layer.saved is not None)
        return archived + await volumes.sole_bytes(here, {session.volume for session in sessions})

    async def _save(self, layer_id: str) -> None:
        if layer_id in self._saves:
            return
        self._saves.add(layer_id)
        try:
            layer = await self._store.get_layer(layer_id)
            if layer is None or layer.is_condemned or layer.saved is not None or layer.fork:
                return
            with self._saving.transfer(layer_id) as transfer:
                saved = await self._saving.save(layer, transfer)
            reached("layer: saved")
            try:
                is_named = await self._store.save_layer(layer_id, saved)
            finally:
                self._saving.named(saved)
            reached("layer: named")
            if (
                not is_named
                and (layer := await self._store.get_layer(layer_id)) is not None
                and layer.saved is not None
            ):
                await self._saving.tidy(layer, (layer.saved,))  # another host was faster
        except (Interrupted, *UNSAVED) as failed:
            log.warning("layer_not_saved", layer=layer_id, reason=str(failed) or repr(failed))
        finally:
            self._saves.discard(layer_id)

    async def _remove(self, layer: Layer) -> None:
        """Removes a condemned layer: from this host, then from the archive, then from the store."""
        try:
            await self._stop_transfers(layer.id)
            await self._remove_volume(layer)
            reached("layer: volume removed")
            await self._saving.remove(layer.id)
            reached("layer: objects removed")
            await self._store.remove_layer(layer.id)
        except errors.Unavailable as failed:
            log.warning("layer_not_removed", layer=layer.id, reason=failed.message)
        else:
            self._forget(layer.id)

    async def _stop_transfers(self, layer_id: str) -> None:
        """When this returns, the layer neither leaves this host nor comes here any more. Raises Unavailable."""
        await self._saving.interrupt(layer_id)
        fetch = self._fetching.get(layer_id)
        if fetch is not None and not (await asyncio.wait([fetch], timeout=STOP_SECONDS))[0]:
            raise errors.Unavailable("The layer is still being fetched.")
