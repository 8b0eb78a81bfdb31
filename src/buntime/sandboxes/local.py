"""The sandboxes of this host. Implements `ports.Sandboxes`.

`pool.py` starts some of them ahead. `containers.py` makes and removes them. `adopting.py` takes over those that an
earlier server left running.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import batched
from typing import Any

import structlog

from buntime.daemon.steps import reached
from buntime.daemon.tasks import to_its_end
from buntime.errors import BuntimeError, Unavailable
from buntime.fleet.neighbours import Endpoint
from buntime.ids import new_volume_id
from buntime.image import MADE_PREFIX
from buntime.measurement import Counted
from buntime.plan import Limits
from buntime.ports import (
    Claimed,
    HostNumbers,
    Kind,
    NoRoom,
    Sandbox,
    SandboxGone,
    Strain,
    TellExits,
    Used,
    VolumeLost,
    Worked,
)
from buntime.sandboxes import record as records
from buntime.sandboxes.adopting import Adoption, Current, Found
from buntime.sandboxes.cache import VolumeCache
from buntime.sandboxes.capacity import Capacity
from buntime.sandboxes.containers import READY_SECONDS, Containers, Purpose, Settings, purpose_of
from buntime.sandboxes.grounds import Grounds
from buntime.sandboxes.images.carrying import CarriedImages
from buntime.sandboxes.inside.launcher import BUSY
from buntime.sandboxes.inside.markers import left_running
from buntime.sandboxes.kernel.chunks import keep_room_for_metadata
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.kernel.oci import Runtime
from buntime.sandboxes.kernel.root import NotAttachable
from buntime.sandboxes.kernel.seen import look_alike
from buntime.sandboxes.kernel.watch import watch_kernel
from buntime.sandboxes.local_volumes import LocalVolumes
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.network.disconnecting import end_connections
from buntime.sandboxes.pool import Pool
from buntime.sandboxes.record import Record
from buntime.sandboxes.removing import Removing
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.sandboxes.starts import Starts
from buntime.sandboxes.used import Metered, Read, count_all, metered, read_all, read_new, read_work, with_packets
from buntime.session import Network as NetworkRules
from buntime.session import Session, State
from buntime.snapshot import MadeImage

log = structlog.get_logger()

CLEARED_AT_ONCE = 4
SPARE_ADDRESSES = 256  # one of so many is kept free for creates and wakes
ATTACHES_AT_ONCE = 2  # they take the threads that start containers
LEAVE_SECONDS, LEAVE_WAITS = 0.5, 6  # for the first requests after attaches: the disk is written out when a root goes
ATTACH_SECONDS = 2.0  # for the guest to answer from its new root
CROWD = 400  # a guest is adopted within READY_SECONDS, and as long again for every so many sandboxes: they share a host
MOST_TOLD = 100  # volumes of which the log has the names
PARENT_TRIES, PARENT_SECONDS = 50, 0.1  # to remove parents at a start
RULES_SECONDS = 1.0  # between checks of the network's rules
REST_SECONDS = 20.0  # after the last answer of a guest: longer than an agent usually thinks between two requests
REST_LOOK_SECONDS, RESTED_AT_ONCE = 5.0, 500


class LocalSandboxes:
    def __init__(self, settings: Settings, part: Part, runtime: Runtime, machinery: Machinery) -> None:
        self._settings = settings
        self._part = part
        self._machinery = machinery
        self._containers = Containers(settings, part, runtime, machinery)
        self._cache = VolumeCache(machinery.volumes)
        self._running: dict[str, LocalSandbox] = {}
        self._removing = Removing(self._containers, machinery.tasks, self.kill)
        self._lost: Callable[[str], Coroutine[Any, Any, None]] | None = None
        self._owned: Set[str] = frozenset()  # volumes of sessions at the start
        self._remains: Set[str] | None = None  # ids of sandboxes that do not run; None before `look`
        self._starts = Starts()
        self._attaches = asyncio.Semaphore(ATTACHES_AT_ONCE)
        self._leaving = asyncio.Lock()
        self._capacity = Capacity(settings, machinery.volumes, self._cache)
        self._grounds = Grounds(machinery)
        self.roots = CarriedImages(settings.images, part.instance)
        self._volumes = LocalVolumes(
            machinery.volumes, machinery.packed, self._cache, self._capacity, self._is_stood_on
        )
        self._pool = Pool(
            settings.pool_size,
            settings.pool_prepared,
            machinery.tasks,
            machinery.rush,
            require_room=self._capacity.require,
            start=self._start_new,
            destroy=self._discard,
            is_busy=lambda: machinery.runs.under_way >= BUSY,
        )
        self._adoption = Adoption(
            settings,
            self._containers,
            self._pool,
            self._running,
            machinery.tasks,
            self._not_adopted,
            machinery.thaws,
        )

    def works(self) -> Mapping[str, bool]:
        """For each part, whether it can serve another session."""
        capacity = self._capacity
        mounted = self._machinery.volumes.mounted
        return {"volumes": mounted, "rules": capacity.rules_hold, "room": capacity.is_there()}

    async def keep_pool(self) -> None:
        await self._adoption.parked.wait()
        await self._pool.keep()

    async def keep_rules(self) -> None:
        """Checks the network's rules forever, and puts them back when something flushed them."""
        while True:
            try:
                if not await asyncio.to_thread(self._machinery.network.ensure):
                    log.error("network_rules_were_gone", hint="something flushed nftables; they are in force again")
                self._capacity.rules_hold = True
            except (HostCommandFailed, OSError) as failed:  # OSError: no file or process is left just now
                self._capacity.rules_hold = False  # no new sandbox until they hold: see `Capacity.require`
                log.error("network_rules_missing", reason=str(failed))
            await asyncio.sleep(RULES_SECONDS)

    def close_hosts(self, hosts: Collection[Endpoint]) -> None:
        """See `Network.close_hosts`."""
        self._machinery.network.close_hosts(hosts)

    async def keep_kernel(self) -> None:
        await watch_kernel(self._machinery.cgroups, self.kill)

    async def keep_room_for_metadata(self) -> None:
        """Runs forever. See `chunks.py`."""
        await keep_room_for_metadata(self._machinery.volumes)

    async def keep_quiet(self) -> None:
        """Runs forever. Lets guests rest that no request has used for a while, but not those of parked sandboxes."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REST_LOOK_SECONDS)
            for some in batched(list(self._running.values()), RESTED_AT_ONCE, strict=False):
                for sandbox in some:
                    sandbox.rest(loop.time() - REST_SECONDS)
                await asyncio.sleep(0)

    async def keep_quotas(self) -> None:
        """Runs forever. See `quotas.py`."""
        await self._machinery.quotas.keep(self._awake)

    def _awake(self) -> Sequence[str]:
        """Volumes whose sessions may write now."""
        awake = [sandbox.record.volume for sandbox in self._running.values() if not sandbox.is_frozen]
        found = self._adoption.found
        return awake + [one.record.volume for one in found if one.session and one.session.state is State.ACTIVE]

    # --- the port ---

    @property
    def volumes(self) -> LocalVolumes:
        return self._volumes

    def on_exited(self, call: TellExits) -> None:
        self._machinery.reports.exits = call

    async def claim(
        self, session_id: str, limits: Limits, image: str = "", layer: str = "", account: str = ""
    ) -> Claimed:
        own = self._settings.image.id
        if layer or (image and image != own):
            has_records = bool(layer) or image.startswith(MADE_PREFIX)
            purpose = Purpose(session_id, image or own, new_volume_id(), limits, is_new=True, has_records=has_records)
            return await self._claim_on(replace(purpose, account=account), layer)
        self._capacity.require()
        sandbox = await self._pool.take()
        reached("claim: taken")
        self._running[sandbox.id] = sandbox
        try:
            sandbox.record = replace(sandbox.record, session=session_id)
            self._removing.note(sandbox.record)
            records.write(self._containers.directory(sandbox.id), sandbox.record)
            reached("claim: recorded")
            used = read_new(self._machinery.cgroups, sandbox.id, self._part.interface(sandbox.record.slot))
            self._containers.keep_root(sandbox.id)
            sandbox.claimed(looks_the_same=look_alike(limits, self._settings.parked_limits))
            if limits != self._settings.parked_limits:
                await asyncio.to_thread(self._containers.limit, sandbox.record, limits)
            reached("claim: limited")
        except BaseException:
            with suppress(Unavailable):  # it is in the log
                await self._discard(sandbox.id)
            raise
        return Claimed(sandbox, sandbox.record.volume, sandbox.record.image, used)

    async def _claim_on(self, purpose: Purpose, layer: str) -> Claimed:
        await self._grounds.require(purpose.image)
        self._capacity.require()
        if layer:
            # apart from attaching, which is done for few at a time: copies that are made at once share a commit
            await self._volumes.copy(layer, purpose.volume, purpose.limits.disk)
            self._cache.drop(purpose.volume)
            purpose = replace(purpose, is_new=False)
        try:
            sandbox = await self._serving(purpose)
        except BaseException:
            if not purpose.is_new:
                await self._removed_later(purpose.volume)
            raise
        self._running[sandbox.id] = sandbox
        return Claimed(sandbox, purpose.volume, purpose.image)

    async def get(self, sandbox_id: str) -> Sandbox | None:
        await self._adopt(sandbox_id)
        sandbox = self._running.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.is_alive() else None

    async def live(self, sandbox_ids: Collection[str]) -> Callable[[str, Kind], int]:
        waiting = [name for name in sandbox_ids if name in self._adoption]
        try:
            left = await asyncio.to_thread(self._left_running, waiting) if waiting else {}
        except OSError as failed:  # too many open files, or no memory
            raise Unavailable("This host cannot count what runs just now.", 5) from failed

        def count(sandbox_id: str, kind: Kind) -> int:
            if sandbox_id in self._adoption:
                return left[sandbox_id][kind] if sandbox_id in left else 0
            sandbox = self._running.get(sandbox_id)
            return sandbox.live(kind) if sandbox is not None and sandbox.is_alive() else 0

        return count

    def _left_running(self, sandbox_ids: Iterable[str]) -> Mapping[str, Counter[str]]:
        directory, cgroups = self._containers.directory, self._machinery.cgroups
        return {name: left_running(f"{directory(name)}/runs", cgroups, name) for name in sandbox_ids}

    def is_running(self, sandbox_id: str) -> bool:
        sandbox = self._running.get(sandbox_id)
        return sandbox_id in self._adoption or (sandbox is not None and sandbox.is_alive())

    async def start(self, session: Session) -> Sandbox:
        await self._adopt(session.sandbox)
        running = self._running.get(session.sandbox)
        if running is not None and running.is_alive() and await self._answers(running):
            return running
        if not self._machinery.volumes.exists(session.volume):
            raise VolumeLost(session.volume)
        await self._grounds.require(session.image)
        self._capacity.require()
        await self._remove_all(session)  # two must not use the volume
        sandbox = await self._serving(purpose_of(session))
        self._running[sandbox.id] = sandbox
        self._cache.drop(session.volume)
        log.info("sandbox_started", session=session.id, sandbox=sandbox.id)
        return sandbox

    async def _adopt(self, sandbox_id: str) -> None:
        """Raises Unavailable where it is neither adopted nor gone, and cannot be now."""
        await self._adoption.done(sandbox_id)
        if sandbox_id in self._adoption:
            raise Unavailable("The session's host cannot act just now.", 5)

    async def _serving(self, purpose: Purpose) -> LocalSandbox:
        """A parked sandbox that is given the root, or a new one. Raises Unavailable."""
        parked = self._pool.take_parked(bare=True)
        sandbox = parked and await self._attached(parked, purpose)
        if sandbox is None:
            start = partial(self._start_clean, purpose)
            sandbox = await self._pool.started(start, waits=not purpose.has_own_files)
        return sandbox

    async def _start_clean(self, purpose: Purpose) -> LocalSandbox:
        sandbox = await self._start_new(purpose)
        if purpose.has_records:
            try:
                await sandbox.forget_records()
            except BaseException as failed:
                await sandbox.kill()  # removing does not know it yet, and would leave its files open
                with suppress(Unavailable):  # it is in the log
                    await (self._discard if purpose.is_new else self._removing.remove)(sandbox.id)
                if isinstance(failed, (SandboxGone, BuntimeError)):
                    raise Unavailable("No sandbox could be started on this host just now.", 5) from failed
                raise
        return sandbox

    async def _attached(self, parked: LocalSandbox, purpose: Purpose) -> LocalSandbox | None:
        """The parked sandbox with another root. None when that is not possible. Raises Unavailable when it fails and
        cannot be removed."""
        empty, left = parked.record.volume, list[int]()
        give_back = self._discard if purpose.is_new else self._removing.remove
        self._removing.note(replace(parked.record, image=purpose.image, volume=purpose.volume))
        try:
            await parked.drop_prepared()  # it started from the other root
            async with self._attaches:
                with parked.held_init() as init:
                    attach = partial(self._containers.attach, parked, init, purpose, left.append)
                    # a cancelled attach removes the sandbox, which must not happen while a thread still works on it
                    await to_its_end(asyncio.to_thread(attach))
            await _both(self._check(parked), parked.forget_records() if purpose.has_records else None)
        except NotAttachable as changed:
            log.info("sandbox_not_attachable", session=purpose.session, reason=str(changed))
            self._removing.forget(parked.id)
            self._pool.add(parked)
            return None
        except BaseException as failed:
            log.warning("sandbox_not_attached", session=purpose.session, sandbox=parked.id, reason=repr(failed))
            self._machinery.tasks.start(self._leave(left, empty), f"remove {empty}")
            await parked.kill()  # removing does not know it, and would leave its files open
            await give_back(parked.id)
            if isinstance(failed, (HostCommandFailed, SandboxGone, BuntimeError, OSError)):
                return None
            raise
        self._machinery.tasks.start(self._leave(left, empty), f"remove {empty}")
        return parked

    async def _check(self, sandbox: LocalSandbox) -> None:
        async with asyncio.timeout(ATTACH_SECONDS):
            await sandbox.check()

    async def _leave(self, roots: Sequence[int], volume_id: str) -> None:
        """Gives up the root that a sandbox had, and its volume."""
        for _ in range(LEAVE_WAITS):
            await asyncio.sleep(LEAVE_SECONDS)
            if self._pool.is_quiet():
                break
        async with self._leaving:
            for root in roots:
                await asyncio.to_thread(os.close, root)
            await self._removed_later(volume_id)

    async def _removed_later(self, volume_id: str) -> None:
        with suppress(Unavailable):  # it is in the log; the next start of the server removes it
            await self._volumes.remove(volume_id)

    async def kill(self, sandbox_id: str) -> None:
        await self._adoption.kill(sandbox_id)
        sandbox = self._running.pop(sandbox_id, None)
        if sandbox is not None:
            await sandbox.kill()

    async def restrict(self, sandbox_id: str, network: NetworkRules) -> None:
        sandbox = await self._adoption.looked_up(sandbox_id) or self._running.get(sandbox_id)
        try:
            if sandbox is not None and sandbox.is_alive():
                await sandbox.restrict(network)
                return
        except SandboxGone as gone:
            log.info("network_rules_not_put", sandbox=sandbox_id, reason=str(gone))
        if sandbox_id in self._adoption:
            raise Unavailable("The session's host cannot act just now.", 5)

    async def disconnect(self, sandbox_id: str) -> None:
        record = records.read(self._containers.directory(sandbox_id))
        if record is None or record.slot == records.NO_SLOT:
            return
        try:
            ended = await asyncio.to_thread(end_connections, self._part.address(record.slot))
            log.info("connections_ended", sandbox=sandbox_id, count=ended)
        except HostCommandFailed as failed:
            log.error("connections_not_ended", sandbox=sandbox_id, reason=str(failed))

    async def stop(self, session: Session) -> None:
        running = self._running.get(session.sandbox)
        quiet = running is not None and running.is_alive() and running.is_quiet
        await self._remove_all(session)
        if not self._machinery.volumes.exists(session.volume):
            return
        if not quiet:
            await asyncio.to_thread(self._machinery.volumes.sync)
        self._machinery.quotas.settle(session.volume)
        self._cache.add(session.volume)

    async def destroy(self, session: Session) -> None:
        await self._remove_all(session)
        await self._volumes.remove(session.volume)

    async def _remove_all(self, session: Session) -> None:
        """Removes the session's sandbox, and any other that still uses its volume. Raises Unavailable."""
        if self._containers.directory(session.sandbox).exists():
            await self._removing.remove(session.sandbox)
        await self._removing.remove_users(session.volume)

    async def _discard(self, sandbox_id: str) -> None:
        """Removes a sandbox that no session has got, with its volume. Raises Unavailable."""
        volume = self._containers.volume_of(sandbox_id)
        await self._removing.remove(sandbox_id)
        if volume is not None:
            await self._volumes.remove(volume)

    async def know(self, image: MadeImage) -> None:
        await self._grounds.know(image)

    async def forget(self, image_id: str) -> None:
        await self._grounds.forget(image_id)

    def _is_stood_on(self, layer: str) -> bool:
        return any(self._grounds.has_layer(image, layer) for image in self._removing.images)

    def look(self, found: Mapping[str, Record | None], owned: Mapping[str, Session]) -> None:
        """The first part of `recover`, which needs no network yet. `found`: see `records.all_in`. Blocking."""
        kept = {name: record for name, record in found.items() if record is not None}
        slots = [record.slot for record in kept.values() if record.slot != records.NO_SLOT]
        self._containers.slots.use(slots)
        self._adoption.seconds = READY_SECONDS * (1 + len(slots) / CROWD)
        for record in kept.values():
            if record.session is not None:
                self._removing.note(record)
        run = {name for name, record in kept.items() if self._adoption.find(record, owned.get(name))}
        self._remains = (found.keys() | self._containers.known()) - run

    async def recover(self, owned: Mapping[str, Session], layers: Collection[str] = ()) -> None:
        if self._remains is None:
            self.look(records.all_in(self._containers.home), owned)
        assert self._remains is not None
        volumes = {session.volume: session for session in owned.values()}
        self._owned = volumes.keys() | set(layers)
        await self._adoption.urgent()
        await _each(self._remains, self._removed)
        await self._recover_volumes(volumes, set(layers))

    def look_before_adopting(self, current: Current) -> None:
        """See `Adoption.look_with`."""
        self._adoption.look_with(current)

    def on_lost(self, call: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._lost = call

    async def adopt(self) -> None:
        await self._adoption.all()

    async def _not_adopted(self, found: Found) -> None:
        """Removes what is left of a sandbox that an earlier server left running."""
        record, session = found.record, found.session
        try:
            with suppress(Unavailable):  # it is in the log
                if session is not None:
                    await self.stop(session)
                elif record.volume in self._owned:  # it was started for a session that did not get it
                    await self._removing.remove(record.sandbox)
                else:
                    await self._discard(record.sandbox)
        finally:
            if session is not None and self._lost is not None:
                self._machinery.tasks.start(self._lost(session.id), f"sandbox of {session.id} is gone")

    async def _removed(self, sandbox_id: str) -> None:
        with suppress(Unavailable):  # it is in the log; its volume stays in use
            await self._removing.remove(sandbox_id)

    async def _recover_volumes(self, owned: Mapping[str, Session], layers: Set[str]) -> None:
        """Removes the volumes and layers that are neither named here nor in use, and the parents that are not what the
        store says of their volume. `owned`: by volume."""
        parked = {one.record.volume for one in self._adoption.found if one.is_parked}
        used = parked | self._removing.volumes
        there = self._machinery.volumes.all()
        orphans = there - used - owned.keys() - layers
        if orphans:
            log.info("orphans_removed", count=len(orphans), volumes=sorted(orphans)[:MOST_TOLD])
        await _each(orphans, self._removed_later)
        await asyncio.to_thread(self._machinery.packed.keep, there - orphans)
        current = {volume: owned[volume] for volume in there & owned.keys()}
        marks = {volume: session.saved.mark if session.saved else "" for volume, session in current.items()}
        await self._keep_parents(marks)
        unused = current.keys() - used
        if unused:  # a sandbox of theirs may have ended without us
            await asyncio.to_thread(self._machinery.volumes.sync)
        for volume in unused:
            self._cache.add(volume)

    async def _keep_parents(self, marks: Mapping[str, str]) -> None:
        """Tries again for a moment: a killed server may have left a process that still sends one."""
        failure = None
        for _ in range(PARENT_TRIES):
            try:
                if removed := await asyncio.to_thread(self._machinery.volumes.parents.keep, marks):
                    log.info("parents_removed", count=removed)
            except OSError as failed:
                failure = failed
                await asyncio.sleep(PARENT_SECONDS)
            else:
                return
        # the session's next save or the next start tries again; until then, nothing relies on them
        log.error("parents_not_removed", reason=str(failure))

    def strain(self) -> Strain:
        strain, total = self._capacity.strain(), self._part.slots
        left = total - self._containers.slots.used + len(self._pool)
        return replace(strain, sandboxes=max(strain.sandboxes, total // SPARE_ADDRESSES - left))

    def numbers(self) -> HostNumbers:
        pool, slots, capacity = self._pool, self._containers.slots, self._capacity
        return HostNumbers(
            running=len(self._running) + len(self._adoption),
            to_adopt=len(self._adoption),
            parked=len(pool),
            wanted=pool.size,
            prepared=sum(sandbox.is_prepared for sandbox in pool),
            claims=pool.claims,
            misses=pool.misses,
            addresses=self._part.slots,
            addresses_used=slots.used,
            memory=capacity.memory(),
            host_disk=capacity.host_disk(),
            volumes_disk=capacity.volumes_disk(),
            no_room={**capacity.refused, NoRoom.ADDRESSES: slots.refused},
        )

    def images(self) -> Collection[str]:
        return self._grounds.at_hand()

    async def used(self, sessions: Sequence[Session]) -> Mapping[str, Used]:
        return await self._read(read_all, self._metered(sessions))

    async def counted(self, sessions: Sequence[Session]) -> Mapping[str, Counted]:
        return await self._read(count_all, self._metered(sessions))

    async def worked(self, sessions: Sequence[Session]) -> Mapping[str, Worked]:
        return await self._read(read_work, with_packets(self._metered(sessions), self._running))

    async def _read[T](self, read: Read[T], some: Sequence[Metered]) -> Mapping[str, T]:
        return await asyncio.to_thread(read, self._machinery.cgroups, self._machinery.volumes, some)

    def _metered(self, sessions: Sequence[Session]) -> Sequence[Metered]:
        waiting = {one.record.sandbox: one.record for one in self._adoption.found}
        return metered(sessions, self._running, waiting, self._part.interface)

    async def touched(self) -> Collection[str]:
        slots = await asyncio.to_thread(self._machinery.network.touched)
        if not slots:
            return ()
        found = [s.record for s in self._running.values()] + [one.record for one in self._adoption.found]
        return [record.session for record in found if record.slot in slots and record.session]

    async def close(self) -> None:
        """Ends the parked sandboxes. Those of sessions go on."""
        self._machinery.quotas.close()
        self._adoption.close()
        parked = {sandbox.id: sandbox for sandbox in self._pool.empty()}
        self._running |= parked
        await _each(parked, self._discard_at_stop)

    async def _discard_at_stop(self, sandbox_id: str) -> None:
        try:
            await self._discard(sandbox_id)
        except Unavailable:  # it is in the log
            return
        except Exception:  # the boundary of a sandbox: one must not cut the stop short, and the next start removes it
            log.exception("sandbox_not_removed", sandbox=sandbox_id)

    # --- starting ---

    async def _start_new(self, purpose: Purpose | None = None) -> LocalSandbox:
        """Starts a sandbox for the purpose, or one to be parked. Raises Unavailable and then leaves nothing new."""
        give_back = self._discard if purpose is None or purpose.is_new else self._removing.remove
        async with self._starts.place(purpose):
            record = self._containers.new_record(purpose)
            if purpose is not None:
                self._removing.note(record)
            try:
                return await self._containers.start(record, purpose)
            except BaseException:
                with suppress(Unavailable):  # it is in the log; a cancellation must reach who cancelled
                    await give_back(record.sandbox)
                raise

    async def _answers(self, sandbox: LocalSandbox) -> bool:
        """Raises Unavailable when it did not, because it was fenced."""
        thaws = self._machinery.thaws()
        try:
            async with asyncio.timeout(READY_SECONDS):
                await sandbox.check()
        except (SandboxGone, TimeoutError) as silent:
            if sandbox.is_alive() and sandbox.was_fenced(thaws):
                raise Unavailable("The session's host cannot act just now.", 5) from silent
            return False
        return True


async def _both(first: Awaitable[None], second: Awaitable[None] | None) -> None:
    """Waits for both, then raises what one of them raised."""
    outcomes = await asyncio.gather(*((first,) if second is None else (first, second)), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


async def _each[T](
    things: Iterable[T],
    work: Callable[[T], Coroutine[Any, Any, None]],
) -> None:
    """Does the work on all things, CLEARED_AT_ONCE at a time. The first failure ends all."""
    places = asyncio.Semaphore(CLEARED_AT_ONCE)

    async def one(thing: T) -> None:
        async with places:
            await work(thing)

    async with asyncio.TaskGroup() as group:
        for thing in list(things):
            group.create_task(one(thing))
