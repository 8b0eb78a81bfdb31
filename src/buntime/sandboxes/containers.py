"""Making a running sandbox from nothing, and removing it.

Every sandbox has a directory with its record. The record is written before anything else is made, and removed last.
Whatever a killed server leaves behind, the next one finds it and finishes the work.
"""

import asyncio
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from buntime.daemon.steps import reached
from buntime.daemon.tasks import to_its_end
from buntime.egress import rules_of
from buntime.errors import Unavailable
from buntime.ids import new_sandbox_id, new_volume_id
from buntime.plan import Limits
from buntime.ports import SandboxGone
from buntime.sandboxes import record as records
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.images.noted import note_guest
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part, Slots
from buntime.sandboxes.kernel.image import Image
from buntime.sandboxes.kernel.oci import Place, Runtime
from buntime.sandboxes.kernel.root import Leave, NotAttachable
from buntime.sandboxes.kernel.seen import make_mount_points, write_seen
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import DEFAULT_NETWORK, Network, Session

log = structlog.get_logger()

READY_SECONDS = 20.0
REMOVE_SECONDS = 10.0
SEEN = "seen"  # a directory beside the record


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a sandbox is to serve, instead of being parked."""

    session: str  # id
    image: str  # id
    volume: str  # id
    limits: Limits
    network: Network = DEFAULT_NETWORK
    is_new: bool = False  # the volume is still to be made
    has_records: bool = False  # those of another session, which must go
    account: str = ""  # id; "": nobody's

    @property
    def has_own_files(self) -> bool:
        """Whether its root has files that a session wrote. They can make the start slow, or keep it from ending."""
        return not self.is_new or self.has_records


def purpose_of(session: Session) -> Purpose:
    return Purpose(session.id, session.image, session.volume, session.limits, session.network, account=session.account)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the composition root decides."""

    data_dir: Path
    images: Path
    image: Image  # for new sandboxes
    resolv_conf: Path
    seccomp: Mapping[str, Any]
    parked_limits: Limits
    pool_size: int
    pool_prepared: int  # of the pool
    disk_reserve: int  # bytes
    memory_reserve: int  # bytes
    cache: int  # bytes that volumes which no sandbox uses may take on this host
    keeps_suspended: bool = False


class Containers:
    def __init__(self, settings: Settings, part: Part, runtime: Runtime, machinery: Machinery) -> None:
        self._settings = settings
        self._part = part
        self._runtime = runtime
        self._machinery = machinery
        self.slots = Slots(part.slots, settings.data_dir / "run" / "slot")
        self.home = settings.data_dir / "sandboxes"
        self.home.mkdir(mode=0o700, exist_ok=True)

    # --- starting ---

    def new_record(self, purpose: Purpose | None) -> Record:
        """Of a sandbox for the purpose, or of one with an empty volume to be parked. Raises Unavailable."""
        owner, image, volume = None, self._settings.image.id, new_volume_id()
        if purpose is not None:
            owner, image, volume = purpose.session, purpose.image, purpose.volume
        secret = secrets.token_hex(16)
        return Record(new_sandbox_id(), self.slots.take(), image, secret, owner, records.GENERATION, volume)

    async def start(self, record: Record, purpose: Purpose | None) -> LocalSandbox:
        """Starts the sandbox of a new record. Raises Unavailable."""
        sandbox_id, slot = record.sandbox, record.slot
        limits = self._settings.parked_limits if purpose is None else purpose.limits
        try:
            if purpose is not None and purpose.network != DEFAULT_NETWORK:
                # before anything runs: even the guest's own start reads files that the session wrote
                await asyncio.to_thread(self._machinery.network.restrict, slot, rules_of(purpose.network))
            # a cancelled start removes the sandbox, which must not happen while a thread still makes it
            init = await to_its_end(asyncio.to_thread(self._make, record, limits, purpose))
            sandbox = self.taken_up(record, init)
            try:
                await sandbox.wait_ready(READY_SECONDS)
                # only now, so that the guest starts at full speed; nothing of the session runs yet
                self._machinery.cgroups.limit(sandbox_id, limits)
                await asyncio.to_thread(self._machinery.volumes.limit, record.volume, limits.disk)
            except BaseException:
                await sandbox.kill()
                raise
        except (HostCommandFailed, SandboxGone, OSError) as failed:
            log.error("sandbox_not_started", sandbox=sandbox_id, reason=str(failed))
            raise Unavailable("No sandbox could be started on this host just now.", 5) from failed
        return sandbox

    def _make(self, record: Record, limits: Limits, purpose: Purpose | None) -> int:
        """Makes a running container, and its volume if it is new. Returns a pidfd of its init. Blocking."""
        sandbox, machinery = record.sandbox, self._machinery
        directory = self.directory(sandbox)
        directory.mkdir(mode=0o700)
        records.write(directory, record)
        note_guest(directory, self._settings.image.id)
        reached("make: recorded")
        if purpose is None:
            machinery.volumes.create(record.volume, limits.disk)
        else:
            self._open_volume(purpose)
        reached("make: volume")
        machinery.cgroups.create(sandbox, machinery.volumes.device)
        reached("make: cgroups")
        write_seen(directory / SEEN, limits)
        make_mount_points(directory / SEEN, machinery.cgroups.seen(sandbox))
        namespace = machinery.network.make(record.slot)
        reached("make: network")
        try:
            pid = self._runtime.run(self._place(record, namespace.path), self._settings.seccomp)
        finally:
            namespace.close()
        if purpose is not None:
            self.keep_root(sandbox)
        reached("make: started")
        init = records.open_process(pid)
        if init is None:
            raise HostCommandFailed("the sandbox ended as soon as it had started")
        return init

    def _open_volume(self, purpose: Purpose) -> None:
        """Makes the purpose's volume ready."""
        volumes = self._machinery.volumes
        ready = volumes.create if purpose.is_new else volumes.open
        ready(purpose.volume, purpose.limits.disk)

    def _place(self, record: Record, netns: str) -> Place:
        """Raises Unavailable when this host does not have the image any more."""
        ground, packed, huge = self._machinery.made.ground(record.image), self._machinery.packed, self._machinery.huge
        return Place(
            name=self._container(record.sandbox),
            bundle=self.directory(record.sandbox),
            image=ground.image,
            packed=[packed.device(layer) for layer in ground.layers],
            guest=self._settings.image.guest,
            huge=huge.over(ground.image),
            guest_huge=huge.over(self._settings.image.path),
            volume=self._machinery.volumes.path(record.volume),
            resolv_conf=self._settings.resolv_conf,
            seen=self.directory(record.sandbox) / SEEN,
            quota=self._machinery.volumes.quota(record.volume),
            controllers=self._machinery.cgroups.seen(record.sandbox),
            netns=netns,
            cgroup=self._machinery.cgroups.oci_path(record.sandbox),
            address=self._part.address(record.slot),
            secret=record.secret,
            first_uid=self._part.first_uid(record.slot),
        )

    def taken_up(self, record: Record, init: int) -> LocalSandbox:
        """The sandbox that runs already. It owns `init`, a pidfd of its init, from now on."""
        address = self._part.address(record.slot)
        guest = Guest(self._machinery.links, address, record.secret)
        directory, env = self.directory(record.sandbox), self._image_env(record)
        return LocalSandbox(record, directory, address, init, guest, self._machinery, env)

    def _image_env(self, record: Record) -> Mapping[str, str]:
        return self._machinery.made.env(record.image)

    def attach(self, sandbox: LocalSandbox, init: int, purpose: Purpose, leave: Leave) -> None:
        """Gives a parked sandbox the purpose's volume and image in place of its own, and its limits and network rules.
        `init`: a pidfd of its first process. `leave`: see `root.replace_root`; before its descriptor is closed, the old
        volume cannot go. Blocking.

        Raises NotAttachable, after which it is parked as before. Raises HostCommandFailed and OSError, after which it
        must be removed.
        """
        machinery, parked = self._machinery, sandbox.record
        self._record(sandbox, replace(parked, session=purpose.session, image=purpose.image, volume=purpose.volume))
        reached("attach: recorded")
        self._open_volume(purpose)
        if purpose.network != DEFAULT_NETWORK:
            machinery.network.restrict(parked.slot, rules_of(purpose.network))
        try:
            self._runtime.replace_root(self._place(sandbox.record, ""), init, leave)
        except NotAttachable:
            if purpose.network != DEFAULT_NETWORK:
                machinery.network.restrict(parked.slot, rules_of(DEFAULT_NETWORK))
            if purpose.is_new:
                machinery.volumes.destroy(purpose.volume)
            self._record(sandbox, parked)
            raise
        reached("attach: root")
        machinery.volumes.limit(purpose.volume, purpose.limits.disk)
        machinery.cgroups.limit(sandbox.id, purpose.limits)
        write_seen(self.directory(sandbox.id) / SEEN, purpose.limits)
        reached("attach: done")

    def _record(self, sandbox: LocalSandbox, record: Record) -> None:
        records.write(self.directory(sandbox.id), record)
        sandbox.serve(record, self._image_env(record))

    def keep_root(self, sandbox_id: str) -> None:
        """To be called when the sandbox has a session: `attach` is for parked ones."""
        self._runtime.keep_root(self._container(sandbox_id))

    def limit(self, record: Record, limits: Limits) -> None:
        """Blocking."""
        self._machinery.cgroups.limit(record.sandbox, limits)
        self._machinery.volumes.limit(record.volume, limits.disk)
        write_seen(self.directory(record.sandbox) / SEEN, limits)

    def restrict(self, record: Record, network: Network) -> None:
        """For a sandbox that nothing removes meanwhile. Blocking. Raises HostCommandFailed."""
        self._machinery.network.restrict(record.slot, rules_of(network))

    # --- removing ---

    def remove(self, sandbox_id: str) -> None:
        """Removes every trace of the sandbox but its volume, the record last. Blocking."""
        directory = self.directory(sandbox_id)
        record = records.read(directory)
        self._clear_container(sandbox_id)
        reached("remove: container")
        if record is not None and record.slot != records.NO_SLOT:
            self._free_slot(record.slot)
        shutil.rmtree(directory, ignore_errors=not directory.exists())
        reached("remove: record")

    def volume_of(self, sandbox_id: str) -> str | None:
        record = records.read(self.directory(sandbox_id))
        return None if record is None else record.volume

    def _clear_container(self, sandbox_id: str) -> None:
        """Removes the container with its processes and cgroups. Its network goes with its last process."""
        with suppress(FileNotFoundError):
            self._machinery.cgroups.freeze(sandbox_id, False)  # a frozen process does not die
        directory = self.directory(sandbox_id)
        self._runtime.delete(self._container(sandbox_id))
        (directory / "pid").unlink(missing_ok=True)
        shutil.rmtree(directory / "runs", ignore_errors=True)
        deadline = time.monotonic() + REMOVE_SECONDS
        while not self._machinery.cgroups.remove(sandbox_id):
            if time.monotonic() > deadline:
                raise HostCommandFailed(f"processes of {sandbox_id} do not end")
            time.sleep(0.002)

    def _free_slot(self, slot: int) -> None:
        self._machinery.network.forget(slot)
        self.slots.free(slot)

    def known(self) -> set[str]:
        """Ids of sandboxes that the runtime or the kernel knows."""
        return self._machinery.cgroups.sandboxes() | {name.rpartition("-")[2] for name in self._runtime.known()}

    def runs(self, sandbox_id: str) -> bool:
        """Whether its init or its guest lives."""
        return self._machinery.cgroups.lives(sandbox_id)

    def left(self, record: Record) -> LocalSandbox | None:
        """The sandbox that an earlier server has left running. None when its init has ended."""
        init = self._running_init(record.sandbox)
        return None if init is None else self.taken_up(record, init)

    def _running_init(self, sandbox_id: str) -> int | None:
        """A pidfd of its init, or None when it does not run."""
        place_of = self._machinery.cgroups.place_of
        pid = records.running_init(self.directory(sandbox_id), lambda groups: place_of(groups) == (sandbox_id, None))
        return None if pid is None else records.open_process(pid)

    def directory(self, sandbox_id: str) -> Path:
        return self.home / sandbox_id

    def _container(self, sandbox_id: str) -> str:
        return f"buntime-{self._part.instance}-{sandbox_id}"
