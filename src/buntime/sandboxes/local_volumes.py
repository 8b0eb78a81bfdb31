"""The volumes of this host. Implements `ports.Volumes`."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from buntime.daemon.steps import reached
from buntime.daemon.tasks import to_its_end
from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import VolumeLost, VolumeUnsendable
from buntime.sandboxes.cache import VolumeCache
from buntime.sandboxes.capacity import Capacity
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.digest import digest_of
from buntime.sandboxes.kernel.incoming import host_failures
from buntime.sandboxes.kernel.packed import Packed
from buntime.sandboxes.kernel.volume import Volumes

log = structlog.get_logger()

STREAM_FACTOR, STREAM_REST = 2, 64 * MB  # the longest stream: so many times the volume's limit, and so much more
LEAST_SHED = 4 * MB  # of a parent: without it, the next archive is full
LEAST_KEPT = 32 * MB  # of a volume: less is sent in a moment, and without a parent its limit is exact


class LocalVolumes:
    def __init__(
        self,
        volumes: Volumes,
        packed: Packed,
        cache: VolumeCache,
        capacity: Capacity,
        is_stood_on: Callable[[str], bool],
    ) -> None:
        """`is_stood_on`: whether a sandbox's image has this layer."""
        self._volumes = volumes
        self._packed = packed
        self._is_stood_on = is_stood_on
        self._cache = cache
        self._capacity = capacity
        self._digesting = asyncio.Lock()  # it takes a processor
        self._kept: dict[str, tuple[str, int]] = {}  # volume → mark and transaction of the state that was kept last
        self._loop = asyncio.get_running_loop()

    def exists(self, volume_id: str) -> bool:
        return self._volumes.exists(volume_id)

    def cached(self) -> Mapping[str, int]:
        return self._cache.sizes()

    def send(self, volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        volumes = self._volumes
        if not volumes.exists(volume_id):
            raise VolumeLost(volume_id)
        if keep and since:
            return self._sent_and_kept(volume_id, keep, since)
        with host_failures():
            contained = volumes.contained(volume_id)
        if keep and contained.size >= LEAST_KEPT:
            return self._sent_and_kept(volume_id, keep, "")
        return volumes.send(volume_id, self._largest_stream(volume_id, contained.size))

    def _sent_and_kept(self, volume_id: str, keep: str, since: str) -> Iterator[bytes]:
        self._require_parent(volume_id, since)
        with host_failures():
            contained = self._volumes.keep(volume_id, keep)
        reached("archive: parent kept")
        yield from self._volumes.send_since(volume_id, self._largest_stream(volume_id, contained.size), keep, since)

    def _require_parent(self, volume_id: str, since: str) -> None:
        if since and since not in self.parents(volume_id):
            raise VolumeUnsendable("the state that it would go on from is not here any more")

    def _largest_stream(self, volume_id: str, size: int) -> int:
        """`size`: bytes that the volume contains."""
        with host_failures():
            return STREAM_FACTOR * max(self._volumes.limit_of(volume_id), size) + STREAM_REST

    async def keep(self, volume_id: str, mark: str) -> None:
        try:
            await to_its_end(asyncio.to_thread(self._keep, volume_id, mark))
        except FileNotFoundError as lost:
            raise VolumeLost(volume_id) from lost
        except OSError as failed:
            log.error("volume_not_kept", volume=volume_id, reason=str(failed))
            raise Unavailable("A session's files could not be copied just now.", 5) from failed
        reached("checkpoint: kept")

    def _keep(self, volume_id: str, mark: str) -> None:
        self._volumes.keep_in_use(volume_id, mark)
        self._kept[volume_id] = mark, self._volumes.transaction_of(volume_id, mark)

    def send_kept(self, volume_id: str, mark: str, since: str = "") -> Iterator[bytes]:
        if mark not in self.parents(volume_id):
            raise VolumeLost(volume_id)
        self._require_parent(volume_id, since)
        volumes = self._volumes
        with host_failures():
            size = volumes.kept_size(volume_id, mark)
            is_parent = bool(since) or (size >= LEAST_KEPT and not volumes.has_sender(volume_id))
        try:
            yield from volumes.send_since(volume_id, self._largest_stream(volume_id, size), mark, since)
        finally:
            if not is_parent:
                with host_failures():
                    volumes.parents.remove(volume_id, mark)

    async def changed(self, states: Mapping[str, str]) -> Collection[str]:
        return await asyncio.to_thread(lambda: {name for name, mark in states.items() if self._may_differ(name, mark)})

    def _may_differ(self, volume_id: str, mark: str) -> bool:
        kept, transaction = self._kept.get(volume_id, ("", 0))
        if not self._volumes.exists(volume_id):
            return False
        try:
            if kept != mark:
                transaction = self._volumes.transaction_of(volume_id, mark)
            return self._volumes.changed_after(volume_id, transaction)
        except FileNotFoundError:
            return True

    def parents(self, volume_id: str) -> Collection[str]:
        return self._volumes.parents.marks(volume_id)

    def drop_parents(self, volume_id: str, but: str = "") -> None:
        with host_failures():
            dropped = self._volumes.parents.drop(volume_id, but)
        if dropped:
            self._loop.call_soon_threadsafe(self._cache.refresh, volume_id, but)

    async def shed(self, wanted: int) -> int:
        freed, parents = 0, self._volumes.parents
        for volume_id, own in sorted(parents.own.items(), key=lambda kept: kept[1], reverse=True):
            if freed >= wanted or own < LEAST_SHED:
                break
            try:
                await asyncio.to_thread(self.drop_parents, volume_id)
            except Unavailable:  # it is being sent just now
                continue
            freed += own
            log.info("parent_dropped", volume=volume_id, bytes=own)
            reached("shed: parent dropped")
        return freed

    def receive(
        self,
        volume_id: str,
        disk: int | None,
        content: Iterator[bytes],
        increments: Iterable[Iterator[bytes]] = (),
        keep: str = "",
    ) -> None:
        self._capacity.require_disk()
        self._volumes.receive(volume_id, disk, content, increments, keep, LEAST_KEPT)
        if disk is not None:
            self._loop.call_soon_threadsafe(self._cache.add, volume_id)

    async def digest(self, layer_id: str) -> str:
        if not self._volumes.exists(layer_id):
            raise VolumeLost(layer_id)
        async with self._digesting:
            try:
                return await to_its_end(asyncio.to_thread(self._digest, layer_id))
            except HostCommandFailed as failed:
                log.error("layer_without_digest", layer=layer_id, reason=str(failed))
                raise Unavailable("The files of a layer could not be read just now.", 5) from failed

    def _digest(self, layer_id: str) -> str:
        return digest_of(self._volumes.upper(layer_id), self._volumes.size_of(layer_id))

    async def remove(self, volume_id: str) -> None:
        if self._is_stood_on(volume_id):
            log.error("layer_still_in_use", layer=volume_id)
            raise Unavailable("A layer cannot be removed while a session stands on it.", 5)
        try:
            await asyncio.to_thread(self._packed.remove, volume_id)
            await asyncio.to_thread(self._volumes.destroy, volume_id)
        except OSError as failed:
            log.error("volume_not_removed", volume=volume_id, reason=str(failed))
            raise Unavailable("A volume could not be removed just now.", 5) from failed
        self._cache.drop(volume_id)
        self._kept.pop(volume_id, None)
        reached("remove: volume")

    async def capture(self, volume_id: str, layer_id: str) -> int:
        with self._answering(volume_id, layer_id):
            size = await to_its_end(asyncio.to_thread(self._volumes.capture, volume_id, layer_id))
        log.info("layer_captured", volume=volume_id, layer=layer_id, bytes=size)
        reached("capture: done")
        return size

    async def sole_bytes(self, layers: Collection[str], volumes: Collection[str]) -> int:
        return await asyncio.to_thread(self._volumes.sole_bytes, layers, volumes)

    async def copy(self, layer_id: str, volume_id: str, disk: int) -> None:
        self._capacity.require_disk()
        with self._answering(layer_id, volume_id):
            await to_its_end(asyncio.to_thread(self._volumes.copy, layer_id, volume_id, disk))
        self._cache.add(volume_id)
        reached("copy: done")

    @contextmanager
    def _answering(self, source: str, target: str) -> Iterator[None]:
        """Raises what the port says for what the kernel refuses."""
        try:
            yield
        except FileExistsError as there:
            raise ValueError(f"{target} is here already") from there
        except OSError as failed:
            if isinstance(failed, FileNotFoundError) and not self.exists(source):  # removed in the middle
                raise VolumeLost(source) from failed
            log.error("volume_not_copied", volume=source, to=target, reason=str(failed))
            raise Unavailable("A session's files could not be copied just now.", 5) from failed
