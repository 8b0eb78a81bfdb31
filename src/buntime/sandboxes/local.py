"""The sandboxes of this host. Implements `ports.Sandboxes`.

Some are started ahead and *parked*: claiming one takes no start. How one comes to be is said in `containers.py`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import structlog

from buntime.daemon.steps import reached
from buntime.errors import Unavailable
from buntime.ids import new_sandbox_id
from buntime.plan import MB, Limits
from buntime.ports import Sandbox, SandboxGone, Strain, VolumeLost
from buntime.sandboxes import record as records
from buntime.sandboxes.containers import READY_SECONDS, Containers, Settings
from buntime.sandboxes.kernel.chunks import keep_room_for_metadata
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part, host_disk_free, memory_available
from buntime.sandboxes.kernel.image import find_image
from buntime.sandboxes.kernel.oci import Runtime
from buntime.sandboxes.kernel.watch import watch_kernel
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.network.disconnecting import end_connections
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.sandboxes.stopped import StoppedVolumes
from buntime.session import Session, State

log = structlog.get_logger()

STARTS_AT_ONCE = 4
ADOPTED_AT_ONCE, ADOPT_SECONDS = 256, 2.0  # what takes longer makes way for the next, and is waited for beside it …
CROWD = 400  # … for READY_SECONDS, and as long again for so many that run: they share a host that may be busy
QUIET_SECONDS = 0.25  # without a claim, before the pool is filled again: a burst has the host to itself
LOW_QUIET_SECONDS = 0.05  # the same while little is parked: claims that come one after the other still come first
REST_SECONDS = 0.02
RULES_SECONDS = 1.0  # between looks at the network's rules
SPARE_MEMORY, SPARE_DISK = 256 * MB, 1024 * MB  # beyond what is kept free: what is freed before creates are refused


class LocalSandboxes:
    def __init__(self, settings: Settings, part: Part, runtime: Runtime, machinery: Machinery) -> None:
        self._settings = settings
        self._part = part
        self._machinery = machinery
        self._containers = Containers(settings, part, runtime, machinery)
        self._stopped = StoppedVolumes(machinery.volumes)
        self._running: dict[str, LocalSandbox] = {}
        self._parked: deque[LocalSandbox] = deque()
        self._removals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self._rules_hold = True
        self._claimed_at = 0.0
        self._waiting = 0  # claims that found nothing parked
        self._claimed = asyncio.Event()

    @property
    def parked(self) -> int:
        return len(self._parked)

    @property
    def running(self) -> int:
        """Those that serve a session."""
        return len(self._running)

    def works(self) -> Mapping[str, bool]:
        """Part → whether it can serve another session."""
        try:
            self._require_room()
        except Unavailable:
            return {"volumes": self._machinery.volumes.mounted, "rules": self._rules_hold, "room": False}
        return {"volumes": self._machinery.volumes.mounted, "rules": self._rules_hold, "room": True}

    async def keep_rules(self) -> None:
        """Looks for ever whether the network's rules are there, and puts them back where somebody flushed them."""
        while True:
            try:
                if not await asyncio.to_thread(self._machinery.network.ensure):
                    log.error("network_rules_were_gone", hint="something flushed nftables; they are in force again")
                self._rules_hold = True
            except HostCommandFailed as failed:
                self._rules_hold = False  # no new sandbox until they hold, see `_require_room`
                log.error("network_rules_missing", reason=str(failed))
            await asyncio.sleep(RULES_SECONDS)

    async def keep_kernel(self) -> None:
        await watch_kernel(self._machinery.cgroups, self.kill)

    async def keep_room_for_metadata(self) -> None:
        """For ever; see `chunks`."""
        await keep_room_for_metadata(self._machinery.volumes)

    # --- the port ---

    async def claim(self, session_id: str, limits: Limits) -> tuple[Sandbox, str]:
        self._require_room()
        self._claimed_at = time.monotonic()
        self._claimed.set()
        sandbox = self._take_parked()
        if sandbox is None:
            self._waiting += 1
            try:
                sandbox = await self._start_new()
            finally:
                self._waiting -= 1
            self._machinery.tasks.start(sandbox.keep_spare(), f"first spare for {sandbox.id}")
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
        self._require_room()
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
        """One at a time for each sandbox. Raises Unavailable when the host does not let go of something."""
        lock = self._removals.setdefault(sandbox_id, asyncio.Lock())  # lives as long as somebody holds it

        async def killed_first() -> None:
            async with lock:
                await self.kill(sandbox_id)
                await asyncio.to_thread(work, sandbox_id)

        try:
            await self._machinery.tasks.finish(killed_first(), f"{work.__name__} {sandbox_id}")
        except HostCommandFailed as failed:
            log.error("sandbox_not_removed", sandbox=sandbox_id, reason=str(failed))
            raise Unavailable("A sandbox could not be removed just now.", 5) from failed

    async def recover(self, owned: Mapping[str, Session]) -> None:
        found = {entry.name for entry in self._containers.home.iterdir()}
        kept = {name: r for name in found if (r := records.read(self._containers.home / name)) is not None}
        slots = [r.slot for r in kept.values() if r.slot != records.NO_SLOT]
        self._containers.slots.use(slots)
        seconds = READY_SECONDS * (1 + len(slots) / CROWD)

        async def adopt(record: Record) -> None:
            await self._adopt(record, owned.get(record.sandbox), seconds)

        await _each(kept.values(), adopt, ADOPTED_AT_ONCE, ADOPT_SECONDS)
        mine = set(self._running) | {sandbox.id for sandbox in self._parked} | set(owned)
        left = found | self._machinery.volumes.all() | self._containers.known()
        orphans = left - mine
        if orphans:
            log.info("orphans_removed", count=len(orphans))
        await _each(orphans, self.destroy)
        for sandbox_id in set(owned) - set(self._running):
            if sandbox_id in kept and kept[sandbox_id].slot == records.NO_SLOT:  # else it is yet to be stopped
                self._stopped.add(sandbox_id)

    # --- volumes of stopped sandboxes ---

    def has_volume(self, sandbox_id: str) -> bool:
        return self._stopped.has_volume(sandbox_id)

    def cached(self) -> Mapping[str, int]:
        return self._stopped.cached()

    def strain(self) -> Strain:
        settings = self._settings
        disk = settings.disk_reserve + SPARE_DISK - self._free_disk()
        return Strain(
            memory=max(0, settings.memory_reserve + SPARE_MEMORY - memory_available()),
            disk=max(0, disk, self._stopped.bytes - settings.cache) if self._stopped.bytes else 0,
        )

    def send(self, sandbox_id: str) -> Iterator[bytes]:
        return self._stopped.send(sandbox_id)

    def receive(self, session: Session, content: Iterator[bytes]) -> None:
        self._require_disk()
        self._stopped.receive(session, content)

    async def evict(self, sandbox_id: str) -> None:
        await self._stopped.evict(sandbox_id)

    async def touched(self) -> Collection[str]:
        slots = await asyncio.to_thread(self._machinery.network.touched)
        if not slots:
            return ()
        return [s.record.session for s in self._running.values() if s.record.slot in slots and s.record.session]

    def _free_disk(self) -> int:
        """Bytes, of the host's disk and of the volumes' file system: whichever is less."""
        return min(host_disk_free(self._settings.data_dir), self._machinery.volumes.free())

    # --- the pool ---

    async def keep_pool(self) -> None:
        """Parks sandboxes for ever, one after the other, and rests while claims come in."""
        while True:
            try:
                await self._fill()
            except (Unavailable, OSError) as failed:
                log.warning("pool_not_filled", reason=str(failed))
                await asyncio.sleep(5)
            self._claimed.clear()
            await self._claimed.wait()

    async def _fill(self) -> None:
        while len(self._parked) < self._settings.pool_size:
            low = len(self._parked) < self._settings.pool_size // 4
            quiet = time.monotonic() - self._claimed_at
            if self._waiting or quiet < (LOW_QUIET_SECONDS if low else QUIET_SECONDS):
                await asyncio.sleep(REST_SECONDS)
                continue
            self._require_room()
            sandbox = await self._start_new()
            try:
                await sandbox.ready_spare()
            except (SandboxGone, OSError) as failed:
                await self.destroy(sandbox.id)
                raise Unavailable("A parked sandbox failed.") from failed
            self._parked.append(sandbox)

    async def close(self) -> None:
        """Parked ones end; those of sessions go on."""
        for sandbox in self._parked:
            self._running[sandbox.id] = sandbox
        parked, self._parked = list(self._parked), deque()
        await _each([sandbox.id for sandbox in parked], self.destroy)

    def _take_parked(self) -> LocalSandbox | None:
        while self._parked:
            sandbox = self._parked.popleft()
            if sandbox.is_alive():
                return sandbox
            self._machinery.tasks.start(self.destroy(sandbox.id), f"destroy {sandbox.id}")
        return None

    # --- starting ---

    async def _start_new(self) -> LocalSandbox:
        """On a fresh volume, with the limits of a parked one. Raises Unavailable; leaves nothing then."""
        async with self._starts:
            sandbox_id = new_sandbox_id()
            try:
                return await self._containers.start(
                    sandbox_id, self._settings.image.id, self._settings.parked_limits, None
                )
            except BaseException:
                await self.destroy(sandbox_id)
                raise

    def _require_room(self) -> None:
        if not self._rules_hold:
            raise Unavailable("This host's network rules cannot be put in force, so no session starts.", 10)
        if memory_available() < self._settings.memory_reserve:
            raise Unavailable("This host has no memory free for another session.", 10)
        self._require_disk()

    def _require_disk(self) -> None:
        if self._free_disk() < self._settings.disk_reserve:
            raise Unavailable("This host has no disk free for another session.", 60)

    async def _answers(self, sandbox: LocalSandbox) -> bool:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await sandbox.check()
        except (SandboxGone, TimeoutError):
            return False
        return True

    # --- taking up and removing ---

    async def _adopt(self, record: Record, session: Session | None, seconds: float) -> None:
        """Takes up what runs, or kills it; what its guest takes longer for than `seconds` too."""
        init = self._containers.running_init(record.sandbox)
        if init is None:
            return
        sandbox = self._containers.taken_up(record, init)
        try:
            await sandbox.thaw()
            if record.generation != records.GENERATION:
                adopted = await self._end_in_order(sandbox, session, seconds)
            elif session is None:
                adopted = await self._adopt_parked(sandbox, seconds)
            else:
                adopted = await self._adopt_own(sandbox, session, seconds)
        except (SandboxGone, TimeoutError) as gone:
            log.warning("sandbox_not_adopted", sandbox=sandbox.id, reason=str(gone) or repr(gone))
            adopted = False
        except Exception:  # the boundary of a sandbox: whatever one does, the server starts for all others
            log.exception("sandbox_not_adopted", sandbox=sandbox.id)
            adopted = False
        if not adopted:
            await sandbox.kill()

    async def _end_in_order(self, sandbox: LocalSandbox, session: Session | None, seconds: float) -> bool:
        """One that an earlier version made: a session's processes may write what they hold before they end."""
        log.info("sandbox_of_an_earlier_version", sandbox=sandbox.id, session=sandbox.record.session)
        if session is not None:
            async with asyncio.timeout(seconds):
                await sandbox.take_over()
                await sandbox.quiesce()
        return False

    async def _adopt_parked(self, sandbox: LocalSandbox, seconds: float) -> bool:
        """One that nobody had claimed yet, if it is up to date and there is a place for it."""
        unclaimed = sandbox.record.session is None and sandbox.record.image == self._settings.image.id
        if not unclaimed or self.parked >= self._settings.pool_size:
            return False
        async with asyncio.timeout(seconds):
            await sandbox.take_over()
            await sandbox.ready_spare()
        # a crash between claiming and storing may have changed them
        await asyncio.to_thread(self._containers.limit, sandbox.id, self._settings.parked_limits)
        if self.parked >= self._settings.pool_size:  # others were quicker
            return False
        self._parked.append(sandbox)
        return True

    async def _adopt_own(self, sandbox: LocalSandbox, session: Session, seconds: float) -> bool:
        """A session's."""
        if session.state is State.DEEP_SLEEP:  # killed between storing that and stopping it
            await sandbox.kill()
            await self.stop(sandbox.id)
            return False
        async with asyncio.timeout(seconds):
            await sandbox.take_over()
        await asyncio.to_thread(self._containers.limit, sandbox.id, session.limits)
        if session.state is State.IDLE:
            await sandbox.freeze()
        self._running[sandbox.id] = sandbox
        return True


async def _each[T](
    things: Iterable[T],
    work: Callable[[T], Coroutine[Any, Any, None]],
    at_once: int = STARTS_AT_ONCE,
    seconds: float | None = None,
) -> None:
    """All of them, some at a time; what takes longer than `seconds` does not count any more. The first failure ends
    it."""
    places = asyncio.Semaphore(at_once)

    async def one(thing: T) -> None:
        async with places:
            await asyncio.wait({group.create_task(work(thing))}, timeout=seconds)

    async with asyncio.TaskGroup() as group:
        for thing in list(things):
            group.create_task(one(thing))
