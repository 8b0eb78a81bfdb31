"""Volumes of stopped sandboxes. Once they are archived they are only a cache."""

import asyncio
from collections.abc import Iterator, Mapping

from buntime.plan import MB
from buntime.ports import VolumeLost
from buntime.sandboxes.kernel.volume import Volumes
from buntime.session import Session

STREAM_FACTOR, STREAM_REST = 2, 64 * MB  # the longest stream: so many times the volume's limit, and so much more


class StoppedVolumes:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._cached: dict[str, int] = {}  # stopped sandbox → bytes of its volume
        self._loop = asyncio.get_running_loop()
        self.bytes = 0  # of all cached volumes

    def has_volume(self, sandbox_id: str) -> bool:
        return self._volumes.exists(sandbox_id)

    def cached(self) -> Mapping[str, int]:
        return self._cached

    def send(self, sandbox_id: str) -> Iterator[bytes]:
        if not self._volumes.exists(sandbox_id):
            raise VolumeLost(sandbox_id)
        return self._volumes.send(sandbox_id, STREAM_FACTOR * self._volumes.limit_of(sandbox_id) + STREAM_REST)

    def receive(self, session: Session, content: Iterator[bytes]) -> None:
        self._volumes.receive(session.sandbox, session.limits.disk, content)
        self._loop.call_soon_threadsafe(self.add, session.sandbox)  # counts as cached until it is started

    async def evict(self, sandbox_id: str) -> None:
        if sandbox_id in self._cached:
            await asyncio.to_thread(self._volumes.destroy, sandbox_id)
            self.drop(sandbox_id)

    def add(self, sandbox_id: str) -> None:
        self.drop(sandbox_id)
        if self._volumes.exists(sandbox_id):
            self._cached[sandbox_id] = self._volumes.used(sandbox_id)
            self.bytes += self._cached[sandbox_id]

    def drop(self, sandbox_id: str) -> None:
        self.bytes -= self._cached.pop(sandbox_id, 0)
