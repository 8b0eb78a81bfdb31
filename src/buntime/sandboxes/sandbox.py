"""One running sandbox: its life, and access to what is inside. Implements `ports.Sandbox`."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from buntime.daemon.tasks import to_its_end
from buntime.egress import rules_of
from buntime.errors import BuntimeError, FileNotFound, Unavailable
from buntime.inside import Contexts, Files, Processes, Services, Sink, Terminals
from buntime.paths import RECORDS, WORKSPACE
from buntime.ports import Kind, Observed, Run, RunResult, SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.inside.contexts import GuestContexts
from buntime.sandboxes.inside.ends import Ends
from buntime.sandboxes.inside.files import GuestFiles
from buntime.sandboxes.inside.launcher import Launcher, has_ended
from buntime.sandboxes.inside.prepared import Prepared
from buntime.sandboxes.inside.processes import GuestProcesses
from buntime.sandboxes.inside.runs import GuestRuns
from buntime.sandboxes.inside.services import GuestServices
from buntime.sandboxes.inside.terminals import GuestTerminals
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.reclaim import Reclaim, host_swaps
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.network.clearing import Clearing
from buntime.sandboxes.network.listening import listeners
from buntime.sandboxes.record import Record, pid_of
from buntime.session import Network as NetworkRules

log = structlog.get_logger()

FREEZE_SECONDS, FREEZE_LOOK_SECONDS = 5.0, 0.002
SETTLE_SECONDS = 5.0  # before a freeze, for what the guest is asked for: a session may keep it from answering
GRACE_SECONDS = 3.0  # for processes to end after SIGTERM: databases write what they hold
FIRST_LOOK_SECONDS, GRACE_LOOK_SECONDS = 0.001, 0.01  # between looks at whether they have: less often later
TELL_SECONDS = 1.0  # for telling the guest about deep sleep
FORGET_SECONDS = 5.0  # for the guest to delete the records of another session


class LocalSandbox:
    def __init__(
        self,
        record: Record,
        directory: Path,
        address: str,
        init: int,
        guest: Guest,
        machinery: Machinery,
        image_env: Mapping[str, str],
    ) -> None:
        """The sandbox owns `init`, a pidfd of its init, from now on. `image_env`: what its image sets."""
        self._address = address
        self._init = init
        self._is_given_up = self._is_killed = False
        self.is_frozen = False
        self.is_quiet = False  # since `quiesce`: what it wrote is on disk
        self._guest = guest
        self._machinery = machinery
        self._reclaim = Reclaim(record.sandbox, machinery.cgroups, machinery.pages, machinery.tasks)
        self._launcher = Launcher(
            record.sandbox, directory / "runs", guest, machinery, self.is_alive, self.kill, self._started
        )
        self._clearing = Clearing(machinery.network, machinery.tasks, self.held_init, self._launcher.runs_something)
        self._prepared = Prepared(record.sandbox, guest, self._launcher, machinery)
        self._runs = GuestRuns(guest, self._launcher, self._prepared, machinery, self._disk_is_full)
        self._ends = Ends(directory / "awaited", self._its_session, guest, self._launcher, machinery)
        self._processes = GuestProcesses(guest, self._launcher, machinery, self._listeners, self._ends)
        self._services = GuestServices(guest, self._launcher, self._ends)
        self._contexts = GuestContexts(guest, self._launcher, machinery, self._disk_is_full)
        self._terminals = GuestTerminals(guest, self._launcher, machinery)
        self._files = GuestFiles(guest, self._launcher, self._runs, self._make_room)
        self.serve(record, image_env)

    def serve(self, record: Record, image_env: Mapping[str, str]) -> None:
        """The sandbox is what the record says from now on."""
        self.record = record
        self._launcher.image_env = image_env

    @property
    def id(self) -> str:
        return self.record.sandbox

    @contextmanager
    def held_init(self) -> Iterator[int]:
        """A pidfd of its first process. It stays open, and the same process's, even if the sandbox is killed
        meanwhile. Raises SandboxGone."""
        if self._init < 0:
            raise SandboxGone("it was killed")
        init = os.dup(self._init)
        try:
            yield init
        finally:
            os.close(init)

    @property
    def address(self) -> str:
        return self._address

    @property
    def processes(self) -> Processes:
        return self._processes

    @property
    def services(self) -> Services:
        return self._services

    @property
    def contexts(self) -> Contexts:
        return self._contexts

    @property
    def terminals(self) -> Terminals:
        return self._terminals

    @property
    def files(self) -> Files:
        return self._files

    def live(self, kind: Kind) -> int:
        return self._launcher.live(kind)

    # --- life ---

    def is_alive(self) -> bool:
        return self._init >= 0 and not has_ended(self._init, 0)

    def was_fenced(self, thaws: int) -> bool:
        """See `Launcher.was_fenced`."""
        return self._launcher.was_fenced(thaws)

    async def kill(self) -> None:
        """Sends SIGKILL to its init. The kernel then ends every process of its pid namespace."""
        if self._init < 0:
            return
        init, self._init, self._is_killed = self._init, -1, True
        self._clearing.close()
        try:
            signal.pidfd_send_signal(init, signal.SIGKILL)
            self.let_go()  # on cgroup v1 even SIGKILL does not end a frozen process
            await asyncio.to_thread(has_ended, init, 10_000)
        except ProcessLookupError:
            pass
        finally:
            os.close(init)
            self._guest.close()

    def give_up(self, *, frozen: bool = False) -> bool:
        """Leaves the sandbox running, or frozen. It can be taken up again. False: it was killed."""
        if self._init >= 0:
            os.close(self._init)
            self._init, self._is_given_up = -1, True
            self._clearing.close()
            self._reclaim.thawed()
            self._guest.close()
        if frozen and self._is_given_up:
            with suppress(OSError):
                self._machinery.cgroups.freeze(self.id, True)
        return self._is_given_up

    async def freeze(self) -> bool:
        frozen = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    # where it is paged out, the first run afterwards waits for its pages anyway
                    await self._launcher.fall_asleep(keeps_spare=not host_swaps())
                    await self._prepared.drop()
                    await self._contexts.settled()
                frozen = await self._freeze_all()
            return frozen
        finally:
            if not frozen:
                self.let_go()
                self._ends.listen()

    async def _freeze_all(self) -> bool:
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + FREEZE_SECONDS
        if self._is_killed:  # on cgroup v1 even SIGKILL does not end a frozen process
            return False
        cgroups.freeze(self.id, True)
        while not cgroups.is_frozen(self.id):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(FREEZE_LOOK_SECONDS)
            if self._is_killed:
                return False
            cgroups.freeze(self.id, True)  # on cgroup v1 a process that forks meanwhile must be frozen again
        self._reclaim.frozen()
        self._clearing.rest()
        self.is_frozen = True
        return True

    async def quiesce(self, *, durable: bool = True) -> bool:
        self.let_go()
        await asyncio.gather(
            self._tell_of_deep_sleep(self._processes.ending("deep_sleep")),
            self._tell_of_deep_sleep(self._contexts.ending()),
            self._tell_of_deep_sleep(self._terminals.ending("deep_sleep")),  # an interactive shell ignores SIGTERM
        )
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + GRACE_SECONDS
        cgroups.terminate(self.id)
        pause = FIRST_LOOK_SECONDS
        while cgroups.session_processes(self.id) and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, GRACE_LOOK_SECONDS)
        await self._tell_of_deep_sleep(self._processes.settle())
        await self._tell_of_deep_sleep(self._ends.look())
        if not await self.freeze():
            return False
        if durable:
            await self._machinery.sync.done(self._machinery.volumes.sync)  # shared with others that go to sleep now
        self.is_quiet = durable
        return True

    async def _tell_of_deep_sleep(self, telling: Coroutine[Any, Any, None]) -> None:
        """Lets the guest record why processes end. If it does not answer, the sleep goes on all the same."""
        with suppress(SandboxGone, BuntimeError, TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await telling

    async def thaw(self) -> None:
        self.let_go()
        self._ends.listen()
        if host_swaps():
            self._machinery.tasks.start(self._launcher.keep_spare(), f"spare for {self.id} after its sleep")

    def let_go(self) -> None:
        """Lets frozen processes go on, and prepares nothing for the next run."""
        self.is_frozen = self.is_quiet = False
        self._reclaim.thawed()
        with suppress(FileNotFoundError):
            self._machinery.cgroups.freeze(self.id, False)
        self._launcher.wake()
        self._guest.expect()
        self._clearing.look()

    def _started(self) -> None:
        self._clearing.look()

    async def check(self) -> None:
        """Raises SandboxGone unless the guest answers."""
        await self._guest.check()

    async def forget_records(self) -> None:
        """Raises SandboxGone and BuntimeError, also when it takes long: files of a session can make it so."""
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                with suppress(FileNotFound):
                    await self._files.delete(RECORDS, recursive=True)
        except TimeoutError:
            raise SandboxGone("the records of another session do not go") from None

    async def wait_ready(self, seconds: float) -> None:
        """Waits until the guest answers, which files of a session can prevent. Raises SandboxGone."""
        failure = "nothing answers"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self._guest.check()
                    except SandboxGone as failed:
                        if not self.is_alive():
                            raise
                        failure = str(failed)
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise SandboxGone(f"the guest is not ready: {failure}") from None

    async def take_over(self) -> None:
        """Ends runs whose client is gone and keeps what runs in the background, after a restart of the server."""
        await self._guest.check()
        if self.record.session:
            self._clearing.doubt()
        await self._launcher.take_over()
        await self._contexts.take_over()
        await self._ends.take_over()

    async def recall(self) -> None:
        """Lets `quiesce` tell which of an earlier server's processes have ended before."""
        await self._ends.recall()

    async def park(self) -> None:
        """Parks a process for the first run of the session that will claim the sandbox."""
        await self._launcher.ready_spare(counted=False)

    @property
    def has_counted_spare(self) -> bool:
        """Whether nothing is left for `count_spare`."""
        return not self._launcher.has_uncounted_spare

    async def count_spare(self) -> None:
        """Makes the parked process ready for the session that claims the sandbox."""
        await self._launcher.count_spare()

    @property
    def is_prepared(self) -> bool:
        """Whether a Bun has started in it that waits for the first run of code, or is about to."""
        return self._prepared.is_there

    async def prepare(self) -> None:
        """Starts a Bun for the first run of code of the session that will claim the sandbox. A failure is only
        logged."""
        await self._prepared.ahead(self._launcher.env, WORKSPACE)

    def claimed(self, *, looks_the_same: bool) -> None:
        """To be called when a session gets the sandbox. `looks_the_same`: programs see no change of its limits."""
        self._guest.expect()
        self._prepared.claimed(fits=looks_the_same)

    async def drop_prepared(self) -> None:
        await self._prepared.drop()

    async def keep_spare(self) -> None:
        """Like `ready_spare`, but off a request's path. A failure is only logged."""
        await self._launcher.keep_spare()

    # --- the rest ---

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        return await self._runs.run(run, sink)

    @property
    def parked_runs(self) -> list[str]:
        """Those that wait for a program."""
        return [*self._launcher.parked(), *self._prepared.parked()]

    def count_processes(self) -> int:
        return self._machinery.cgroups.session_processes(self.id, leave_out=self.parked_runs)

    def rest(self, unused_since: float) -> None:
        """Lets the guest rest if the session has not used it since that time of the loop. A frozen one rests anyway."""
        if not self.is_frozen and not self._launcher.is_asleep:
            self._guest.hang_up(unused_since)

    def packets(self) -> tuple[int, int]:
        """What the server itself exchanged with the guest: see `Guest.packets`."""
        return self._guest.packets()

    async def observe(self) -> Observed:
        processes = self.count_processes()
        async with self._launcher.ending_an_impostor():
            return Observed(await self._guest.count_files(), processes)

    def _its_session(self) -> str | None:
        return self.record.session

    async def _listeners(self, port: int) -> Set[int]:
        if self.is_alive():
            found = await asyncio.to_thread(listeners, pid_of(self._init), port)
            if self.is_alive():  # so its pid was not another's
                return found
        raise SandboxGone("it ended while its ports were looked at")

    async def _make_room(self, size: int) -> None:
        await self._machinery.quotas.make_room(self.record.volume, size)

    async def _disk_is_full(self, since: float) -> bool:
        return await self._machinery.quotas.is_full(self.record.volume, since)

    async def restrict(self, network: NetworkRules) -> None:
        put = partial(self._machinery.network.restrict, self.record.slot, rules_of(network))
        try:
            with self.held_init() as init:
                # a caller may put other rules next, which must not happen while a thread still puts these
                lives = await to_its_end(asyncio.to_thread(put, lambda: not has_ended(init, 0)))
        except (HostCommandFailed, OSError) as failed:
            log.error("network_rules_not_put", sandbox=self.id, reason=str(failed))
            raise Unavailable("The session's network rules could not be put in force just now.", 2) from failed
        if not lives:
            raise SandboxGone("it ended before its network rules were put")
