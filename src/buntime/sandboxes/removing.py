"""Removing sandboxes completely, and knowing which still use a session's volume."""

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import Unavailable
from buntime.sandboxes.containers import Containers
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.record import Record

log = structlog.get_logger()


class Removing:
    """A sandbox uses its volume until it is removed completely, even if its session has got another one meanwhile."""

    def __init__(self, containers: Containers, tasks: Tasks, kill: Callable[[str], Awaitable[None]]) -> None:
        self._containers = containers
        self._tasks = tasks
        self._kill = kill
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._records: dict[str, Record] = {}  # of sandboxes of sessions, by id

    def note(self, record: Record) -> None:
        """The sandbox is about to use this volume and this image."""
        self._records[record.sandbox] = record

    def forget(self, sandbox_id: str) -> None:
        """The sandbox does not use them."""
        self._records.pop(sandbox_id, None)

    @property
    def volumes(self) -> set[str]:
        """Those in use."""
        return {record.volume for record in self._records.values()}

    @property
    def images(self) -> set[str]:
        """Those in use by sessions."""
        return {record.image for record in self._records.values()}

    async def remove(self, sandbox_id: str) -> None:
        """Kills the sandbox and removes every trace of it but its volume. Raises Unavailable; you can call it again."""
        lock = self._locks.setdefault(sandbox_id, asyncio.Lock())  # lives as long as a caller holds it

        async def killed_first() -> None:
            async with lock:
                await self._kill(sandbox_id)
                await asyncio.to_thread(self._containers.remove, sandbox_id)
                self._records.pop(sandbox_id, None)

        try:
            await self._tasks.finish(killed_first(), f"remove {sandbox_id}")
        except (HostCommandFailed, OSError) as failed:
            log.error("sandbox_not_removed", sandbox=sandbox_id, reason=str(failed))
            raise Unavailable("A sandbox could not be removed just now.", 5) from failed

    async def remove_users(self, volume_id: str) -> None:
        """Removes every sandbox that uses the volume. Raises Unavailable."""
        for sandbox_id in [name for name, record in self._records.items() if record.volume == volume_id]:
            await self.remove(sandbox_id)
