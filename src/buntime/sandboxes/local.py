"""The sandboxes of this host. Implements `ports.Sandboxes`.

`pool.py` starts some of them ahead. `containers.py` makes and removes them. `adopting.py` takes over those that an
earlier server left running.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import structlog

from buntime.daemon.steps import reached
from buntime.errors import Unavailable
from buntime.ids import new_sandbox_id
from buntime.plan import Limits
from buntime.ports import HostNumbers, NoRoom, Sandbox, SandboxGone, Strain, VolumeLost
from buntime.sandboxes import record as records
from buntime.sandboxes.adopting import Adoption
from buntime.sandboxes.capacity import Capacity
from buntime.sandboxes.containers import READY_SECONDS, Containers, Settings
from buntime.sandboxes.kernel.chunks import keep_room_for_metadata
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.kernel.image import find_image
from buntime.sandboxes.kernel.oci import Runtime
from buntime.sandboxes.kernel.watch import watch_kernel
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.network.disconnecting import end_connections
from buntime.sandboxes.pool import Pool
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.sandboxes.stopped import StoppedVolumes
from buntime.session import Session

log = structlog.get_logger()

STARTS_AT_ONCE = 4
ADOPTED_AT_ONCE, ADOPT_SECONDS = 256, 2.0  # a slower adoption makes way for the next one and goes on beside it …
CROWD = 400  # … for READY_SECONDS, and as long again for every so many sandboxes: they share a host that may be busy
RULES_SECONDS = 1.0  # between checks of the network's rules


class LocalSandboxes:
    def __init__(self, settings: Settings, part: Part, runtime: Runtime, machinery: Machinery) -> None:
        self._settings = settings
        self._part = part
        self._machinery = machinery
        self._containers = Containers(settings, part, runtime, machinery)
        self._stopped = StoppedVolumes(machinery.volumes)
        self._running: dict[str, LocalSandbox] = {}
        self._removals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self._capacity = Capacity(settings, machinery.volumes, self._stopped)
        self._pool = Pool(
            settings.pool_size,
            machinery.tasks,
            require_room=self._capacity.require,
            start=self._start_new,
            destroy=self.destroy,
        )

    def works(self) -> Mapping[str, bool]:
        """For each part, whether it can serve another session."""
        capacity = self._capacity
        mounted = self._machinery.volumes.mounted
        return {"volumes": mounted, "rules": capacity.rules_hold, "room": capacity.is_there()}

    async def keep_pool(self) -> None:
        await self._pool.keep()

    async def keep_rules(self) -> None:
        """Checks the network's rules forever, and puts them back when something flushed them."""
        while True:
            try:
                if not await asyncio.to_thread(self._machinery.network.ensure):
                    log.error("network_rules_were_gone", hint="something flushed nftables; they are in force again")
                self._capacity.rules_hold = True
            except HostCommandFailed as failed:
                self._capacity.rules_hold = False  # no new sandbox until they hold: see `Capacity.require`
                log.error("network_rules_missing", reason=str(failed))
            await asyncio.sleep(RULES_SECONDS)

    async def keep_kernel(self) -> None:
        await watch_kernel(self._machinery.cgroups, self.kill)

    async def keep_room_for_metadata(self) -> None:
        """Runs forever. See `chunks.py`."""
        await keep_room_for_metadata(self._machinery.volumes)

    # --- the port ---

    async def claim(self, session_id: str, limits: Limits) -> tuple[Sandbox, str]:
        self._capacity.require()
        sandbox = await self._pool.take()
        reached("claim: taken")
        try:
            sandbox.record = replace(sandbox.record, session=session_id)
            records.write(self._containers.directory(sandbox.id), sandbox.record)
            reached("claim: recorded")
            if limits != self._settings.parked_limits:
                await asyncio.to_thread(self._containers.limit, sandbox.id, limits)
            reached("claim: limited")
        except BaseException:
            self._running[sandbox.id] = sandbox
            with suppress(Unavailable):  # it is in the log
                await self.destroy(sandbox.id)
            raise
        self._running[sandbox.id] = sandbox
        return sandbox, sandbox.record.image

    async def get(self, sandbox_id: str) -> Sandbox | None:
        sandbox = self._running.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.is_alive() else None

    async def start(self, session: Session) -> Sandbox:
        running = self._running.get(session.sandbox)
        if running is not None and running.is_alive() and await self._answers(running):
            return running
        await self.kill(session.sandbox)
        if not self._machinery.volumes.exists(session.sandbox):
            raise VolumeLost(session.sandbox)
        if find_image(self._settings.images, session.image) is None:
            raise Unavailable(f"This host does not have the image {session.image} that the session stands on.", 60)
        self._capacity.require()
        async with self._starts:
            sandbox = await self._containers.start(session.sandbox, session.image, session.limits, session)
        self._running[sandbox.id] = sandbox
        self._stopped.drop(sandbox.id)
        log.info("sandbox_restarted", session=session.id, sandbox=sandbox.id)
        return sandbox

    async def kill(self, sandbox_id: str) -> None:
        sandbox = self._running.pop(sandbox_id, None)
        if sandbox is not None:
            await sandbox.kill()

    async def disconnect(self, sandbox_id: str) -> None:
        record = records.read(self._containers.directory(sandbox_id))
        if record is None or record.slot == records.NO_SLOT:
            return
        try:
            ended = await asyncio.to_thread(end_connections, self._part.address(record.slot))
            log.info("connections_ended", sandbox=sandbox_id, count=ended)
        except HostCommandFailed as failed:
            log.error("connections_not_ended", sandbox=sandbox_id, reason=str(failed))

    async def stop(self, sandbox_id: str) -> None:
        quiet = await self.get(sandbox_id) is not None  # `quiesce` has put everything on disk
        await self._give_back(sandbox_id, self._containers.stop)
        if not quiet and self.has_volume(sandbox_id):
            await asyncio.to_thread(self._machinery.volumes.sync)
        self._stopped.add(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        await self._give_back(sandbox_id, self._containers.remove)
        self._stopped.drop(sandbox_id)

    async def _give_back(self, sandbox_id: str, work: Callable[[str], None]) -> None:
        """Kills the sandbox, then does the work, one at a time for each sandbox. Raises Unavailable when it fails."""
        lock = self._removals.setdefault(sandbox_id, asyncio.Lock())  # lives as long as a caller holds it

        async def killed_first() -> None:
            async with lock:
                await self.kill(sandbox_id)
                await asyncio.to_thread(work, sandbox_id)

        try:
            await self._machinery.tasks.finish(killed_first(), f"{work.__name__} {sandbox_id}")
        except (HostCommandFailed, OSError) as failed:
            log.error("sandbox_not_removed", sandbox=sandbox_id, reason=str(failed))
            raise Unavailable("A sandbox could not be removed just now.", 5) from failed

    async def recover(self, owned: Mapping[str, Session]) -> None:
        found = {entry.name for entry in self._containers.home.iterdir()}
        kept = {name: r for name in found if (r := records.read(self._containers.home / name)) is not None}
        slots = [r.slot for r in kept.values() if r.slot != records.NO_SLOT]
        self._containers.slots.use(slots)
        seconds = READY_SECONDS * (1 + len(slots) / CROWD)

        adoption = Adoption(self._settings, self._containers, self._pool, self._running, self.stop, seconds)

        async def adopt(record: Record) -> None:
            await adoption.adopt(record, owned.get(record.sandbox))

        await _each(kept.values(), adopt, ADOPTED_AT_ONCE, ADOPT_SECONDS)
        mine = set(self._running) | self._pool.ids | set(owned)
        left = found | self._machinery.volumes.all() | self._containers.known()
        orphans = left - mine
        if orphans:
            log.info("orphans_removed", count=len(orphans))
        await _each(orphans, self.destroy)
        for sandbox_id in set(owned) - set(self._running):
            if sandbox_id in kept and kept[sandbox_id].slot == records.NO_SLOT:  # otherwise it has yet to be stopped
                self._stopped.add(sandbox_id)

    # --- volumes of stopped sandboxes ---

    def has_volume(self, sandbox_id: str) -> bool:
        return self._stopped.has_volume(sandbox_id)

    def cached(self) -> Mapping[str, int]:
        return self._stopped.cached()

    def strain(self) -> Strain:
        return self._capacity.strain()

    def send(self, sandbox_id: str) -> Iterator[bytes]:
        return self._stopped.send(sandbox_id)

    def receive(self, session: Session, content: Iterator[bytes]) -> None:
        self._capacity.require_disk()
        self._stopped.receive(session, content)

    async def evict(self, sandbox_id: str) -> None:
        await self._stopped.evict(sandbox_id)

    def numbers(self) -> HostNumbers:
        pool, slots, capacity = self._pool, self._containers.slots, self._capacity
        return HostNumbers(
            running=len(self._running),
            parked=len(pool),
            wanted=pool.size,
            claims=pool.claims,
            misses=pool.misses,
            addresses=self._part.slots,
            addresses_used=slots.used,
            memory=capacity.memory(),
            host_disk=capacity.host_disk(),
            volumes_disk=capacity.volumes_disk(),
            no_room={**capacity.refused, NoRoom.ADDRESSES: slots.refused},
        )

    async def touched(self) -> Collection[str]:
        slots = await asyncio.to_thread(self._machinery.network.touched)
        if not slots:
            return ()
        return [s.record.session for s in self._running.values() if s.record.slot in slots and s.record.session]

    async def close(self) -> None:
        """Ends the parked sandboxes. Those of sessions go on."""
        parked = {sandbox.id: sandbox for sandbox in self._pool.empty()}
        self._running |= parked
        await _each(parked, self.destroy)

    # --- starting ---

    async def _start_new(self) -> LocalSandbox:
        """Starts a sandbox on a fresh volume with a parked one's limits. Raises Unavailable and then leaves nothing."""
        async with self._starts:
            sandbox_id = new_sandbox_id()
            try:
                return await self._containers.start(
                    sandbox_id, self._settings.image.id, self._settings.parked_limits, None
                )
            except BaseException:
                with suppress(Unavailable):  # it is in the log; a cancellation must reach who cancelled
                    await self.destroy(sandbox_id)
                raise

    async def _answers(self, sandbox: LocalSandbox) -> bool:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await sandbox.check()
        except (SandboxGone, TimeoutError):
            return False
        return True


async def _each[T](
    things: Iterable[T],
    work: Callable[[T], Coroutine[Any, Any, None]],
    at_once: int = STARTS_AT_ONCE,
    seconds: float | None = None,
) -> None:
    """Does the work on all things, `at_once` at a time. Work that takes longer than `seconds` no longer counts. The
    first failure ends all."""
    places = asyncio.Semaphore(at_once)

    async def one(thing: T) -> None:
        async with places:
            await asyncio.wait({group.create_task(work(thing))}, timeout=seconds)

    async with asyncio.TaskGroup() as group:
        for thing in list(things):
            group.create_task(one(thing))
