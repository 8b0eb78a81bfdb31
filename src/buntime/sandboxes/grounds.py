"""Made images on this host: which there are, and whether sessions can stand on them."""

import asyncio
import time
from collections.abc import Collection, Set

import structlog

from buntime.daemon.steps import reached
from buntime.daemon.tasks import to_its_end
from buntime.errors import Unavailable
from buntime.ports import VolumeLost
from buntime.sandboxes.kernel.packed import Unpackable
from buntime.sandboxes.machinery import Machinery
from buntime.snapshot import MadeImage

log = structlog.get_logger()

LOOK_SECONDS = 10.0


class Grounds:
    def __init__(self, machinery: Machinery) -> None:
        self._volumes = machinery.volumes
        self._made = machinery.made
        self._packed = machinery.packed
        self._knowing = asyncio.Lock()
        self._packing = asyncio.Lock()  # it takes a processor
        self._at_hand: Set[str] = frozenset()
        self._look_at = 0.0

    async def know(self, image: MadeImage) -> None:
        """See `ports.Sandboxes`. Packs the layers that are on this host, so that no session has to wait for it."""
        async with self._knowing:
            if not await asyncio.to_thread(self._made.know, image):
                return
        reached("image: described")
        try:
            for layer in self._made.layers(image.id):
                if self._volumes.exists(layer):
                    await self._pack(layer)
        except Unpackable:
            await self.forget(image.id)
            raise
        except Unavailable as failed:
            log.warning("layer_not_packed", image=image.id, reason=str(failed))  # the first session tries again

    async def forget(self, image_id: str) -> None:
        async with self._knowing:
            await asyncio.to_thread(self._made.forget, image_id)

    async def require(self, image_id: str) -> None:
        """When this returns, a session can stand on the image. Raises Unavailable and VolumeLost when it cannot."""
        for layer in self._made.ground(image_id).layers:
            if not self._volumes.exists(layer):
                raise VolumeLost(layer)
            try:
                await self._pack(layer)
            except Unpackable as failed:
                log.error("layer_not_packed", layer=layer, reason=str(failed))
                raise Unavailable("This host cannot use the image that the session stands on.", 60) from failed

    def has_layer(self, image_id: str, layer: str) -> bool:
        return layer in self._made.layers(image_id)

    def at_hand(self) -> Collection[str]:
        """Ids of all images but the default one that are here with all their layers. Looked for every LOOK_SECONDS."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._at_hand = {*self._made.added(), *self._made.whole(self._volumes.exists)}
        return self._at_hand

    async def _pack(self, layer: str) -> None:
        if self._packed.has(layer):
            return
        async with self._packing:
            if not self._packed.has(layer):
                # a cancelled caller must not leave a thread that packs beside the next one
                await to_its_end(asyncio.to_thread(self._pack_now, layer))
                log.info("layer_packed", layer=layer)
                reached("image: packed")

    def _pack_now(self, layer: str) -> None:
        self._packed.pack(layer, self._volumes.upper(layer), self._volumes.size_of(layer))
