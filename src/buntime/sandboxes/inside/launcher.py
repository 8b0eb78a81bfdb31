"""Processes of a session that are born in cgroups of their own.

Whatever a session runs is started by a *spare*: a process that the guest has parked and that the host has moved into a
cgroup of its own beforehand. So all that it starts is born there, and its peak memory, its CPU time, its deaths and its
end are the kernel's word. The next spare is made after a start, off its path.

A file per cgroup says what lives in it: it is empty while somebody waits for a result, has the kind of a process,
context or terminal, and is gone when a run was answered, whatever that has left in the background.
"""

import asyncio
import itertools
import os
import select
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from buntime.errors import BuntimeError
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Impostor, SpareGone
from buntime.sandboxes.kernel.cgroup import RUN_PIDS, RunUsage
from buntime.sandboxes.kernel.process_limit import ProcessLimit
from buntime.sandboxes.machinery import Machinery

log = structlog.get_logger()

type Lives = Literal["run", "processes", "contexts", "terminals"]

KINDS: Mapping[str, Lives] = {"processes": "processes", "contexts": "contexts", "terminals": "terminals"}
ANSWER_SECONDS = 10.0  # for the guest, beyond a run's own time
SPARE_TRIES = 3
BUSY = 2 * (os.cpu_count() or 1)  # runs under way, from which on other work of ours waits …
SPARE_WAITS, SPARE_WAIT_SECONDS = 10, 0.02  # … so long at the most
CROWDED_PIDS = RUN_PIDS // 2  # from which on it is looked for what met the limit in the background


@dataclass(frozen=True, slots=True)
class Spare:
    pid: int  # inside the sandbox
    run: str  # its cgroup


class Launcher:
    """`kill`: ends the sandbox, for a guest that does not answer or is an impostor."""

    def __init__(
        self,
        sandbox: str,
        markers: Path,
        guest: Guest,
        machinery: Machinery,
        is_alive: Callable[[], bool],
        kill: Callable[[], Awaitable[None]],
    ) -> None:
        self._sandbox = sandbox
        self._markers = markers
        self._guest = guest
        self._machinery = machinery
        self._is_alive = is_alive
        self._kill = kill
        self._spare: Spare | None = None
        self._preparing = asyncio.Lock()
        self._sleeps = False  # it is frozen, or will be in a moment
        self._wakes = 0  # times
        self._left: dict[str, Lives] = {}  # cgroups of what goes on in the background
        self._names: dict[str, str] = {}  # of those that have one
        self._held: set[str] = set()  # those whose figures somebody still wants
        self._limits: dict[str, ProcessLimit] = {}  # of those that are watched
        self._numbers = itertools.count(self._first_number())
        markers.mkdir(exist_ok=True)

    @property
    def sandbox(self) -> str:
        return self._sandbox

    async def take_over(self) -> None:
        """After a restart of the server: ends runs whose client is gone, keeps what runs in the background."""
        kinds: dict[str, Lives] = {}
        for marker in list(self._markers.iterdir()):
            kind, _, name = (await asyncio.to_thread(marker.read_text)).partition(" ")
            lives = KINDS.get(kind)
            if lives is not None:
                kinds[marker.name] = lives
                self._names |= {marker.name: name} if name else {}
            else:
                await asyncio.to_thread(self.end, marker.name)
        self._left = {run: kinds.get(run, "run") for run in self._machinery.cgroups.runs(self._sandbox)}
        self.sweep()
        for run in self._left:
            self.watch(run)

    async def launch[T](self, start: Callable[[Spare], Awaitable[T]]) -> tuple[T, Spare]:
        """What `start` makes of a spare. A spare that is gone is replaced; where the guest refuses, it is ended."""
        for _ in range(SPARE_TRIES):
            spare = await self._take()
            self.watch(spare.run)
            try:
                return await start(spare), spare
            except SpareGone:
                await asyncio.to_thread(self.end, spare.run)
            except BuntimeError:  # its process is parked still, and nobody's
                await asyncio.to_thread(self.end, spare.run)
                raise
        raise SandboxGone("the session ends every process that is parked for a run")

    async def background[T](
        self, lives: Lives, start: Callable[[Spare], Awaitable[T]], name: str = ""
    ) -> tuple[T, str]:
        """What `start` makes of a spare, which goes on in the background; its cgroup. Whole, or ended. `name`: see
        `named`."""

        async def started(spare: Spare) -> T:
            try:
                return await self.in_time(_coroutine(start(spare)), ANSWER_SECONDS)
            except BaseException as failed:
                if not isinstance(failed, (SpareGone, BuntimeError)):  # for those see `launch`
                    self.end_later(spare.run)
                raise

        await self.make_room()
        result, spare = await self.launch(started)
        self.finish(spare.run, lives, name)
        return result, spare.run

    def finish(self, run: str, lives: Lives = "run", name: str = "") -> None:
        """It is answered: from now on, what lives in the cgroup is the session's background. The next spare is made."""
        if lives == "run":
            (self._markers / run).unlink(missing_ok=True)
        else:
            (self._markers / run).write_text(f"{lives} {name}".strip())
        self._left[run] = lives
        self._names |= {run: name} if name else {}
        self._machinery.tasks.start(self.keep_spare(), f"spare for {self._sandbox}")

    def named(self, name: str) -> str | None:
        """The cgroup of what has this name and lives, known after a restart of the server too."""
        return next((run for run, known in self._names.items() if known == name), None)

    def usage(self, run: str) -> RunUsage:
        """Raises SandboxGone."""
        try:
            return self._machinery.cgroups.usage(self._sandbox, run)
        except OSError as gone:
            raise SandboxGone("the cgroup of the run is gone") from gone

    def watch(self, run: str, *, used: bool = False) -> None:
        """For `met_limit`, from now on. `used`: something has run in the cgroup before."""
        self._limits.pop(run, None)
        with suppress(OSError):  # it is gone, which whatever is done with it finds out
            self._limits[run] = ProcessLimit(self._machinery.cgroups, self._sandbox, run, used=used)

    def met_limit(self, run: str) -> bool:
        """Whether what lives in the cgroup has met the limit on processes since it is watched."""
        limit = self._limits.get(run)
        return limit is not None and limit.is_met()

    async def make_room(self) -> None:
        """Before something starts: ends what answered runs have left, where that met the limit on processes."""
        if self._sleeps:
            return  # frozen, nothing ends
        try:
            if self._machinery.cgroups.processes(self._sandbox) < CROWDED_PIDS:
                return
        except OSError:
            return  # the sandbox is gone, which whatever starts finds out
        for run in [run for run, lives in self._left.items() if lives == "run"]:
            if self.met_limit(run):
                await asyncio.to_thread(self.end, run)

    def kill_run(self, run: str) -> bool:
        """All processes of the cgroup; whether none is left. Blocking."""
        if run in self._limits:
            self._limits[run].settle()
        return self._machinery.cgroups.kill_run(self._sandbox, run)

    def end(self, run: str) -> None:
        """Kills all that lives in the cgroup and forgets it. Blocking."""
        self._machinery.cgroups.kill_run(self._sandbox, run)
        self._machinery.cgroups.remove_run(self._sandbox, run)
        (self._markers / run).unlink(missing_ok=True)
        self._forget(run)

    def end_later(self, run: str) -> None:
        """The same off the caller's path."""
        self._machinery.tasks.start(asyncio.to_thread(self.end, run), f"end {run} of {self._sandbox}")

    def _forget(self, run: str) -> None:
        self._left.pop(run, None)
        self._names.pop(run, None)
        self._limits.pop(run, None)

    def live(self, lives: Lives) -> int:
        """How many cgroups of this kind have something living in them, or are held."""
        if lives in self._left.values():
            self.sweep()
        return Counter(self._left.values())[lives]

    def hold(self, run: str) -> None:
        """Its figures stay, until `release`, when nothing lives in it any more."""
        self._held.add(run)

    def release(self, run: str) -> None:
        self._held.discard(run)

    def is_alive(self) -> bool:
        return self._is_alive()

    async def kill_sandbox(self) -> None:
        """Never called while the sandbox is frozen: a frozen guest cannot answer."""
        await self._kill()

    def sweep(self) -> None:
        """Forgets cgroups in which nothing lives any more."""
        for run in self._left.keys() - self._held:
            if self._machinery.cgroups.remove_run(self._sandbox, run):
                (self._markers / run).unlink(missing_ok=True)
                self._forget(run)

    def parked(self) -> list[str]:
        """Cgroups of what waits for its first use."""
        return [self._spare.run] if self._spare else []

    async def another(self) -> Spare:
        """A parked process beside the one that the next run takes; the caller's."""
        return await self._prepare()

    # --- spares ---

    async def _take(self) -> Spare:
        """The parked one, also if it is being made just now."""
        async with self._preparing:
            spare, self._spare = self._spare, None
            return spare or await self._prepare()

    async def _prepare(self) -> Spare:
        """A parked process in a cgroup of its own."""
        for _ in range(SPARE_TRIES):
            pid = await self.in_time(self._guest.spare(), ANSWER_SECONDS)
            run = f"r{next(self._numbers)}"
            (self._markers / run).touch()
            self._machinery.cgroups.add_run(self._sandbox, run)
            if self._place(pid, run):
                return Spare(pid, run)
            self.end(run)
        raise SandboxGone("no process could be parked for a run")

    def _place(self, pid: int, run: str) -> bool:
        """Moves the process that has this pid inside the sandbox. False where the guest names none of its own."""
        cgroups = self._machinery.cgroups
        for host_pid in cgroups.guest_processes(self._sandbox):
            try:
                handle = os.pidfd_open(host_pid)
            except ProcessLookupError:
                continue
            try:
                if _pid_inside(host_pid) == pid:
                    cgroups.join_run(self._sandbox, run, host_pid)
                    # alive still: then no other process got this number meanwhile, and the right one was moved
                    return not has_ended(handle, 0)
            except OSError:
                return False
            finally:
                os.close(handle)
        return False

    async def ready_spare(self) -> None:
        """Parks a process for the next run where there is none, unless the sandbox sleeps."""
        async with self._preparing:
            if self._spare is None and not self._sleeps and self._is_alive():
                self._spare = await self._prepare()

    async def keep_spare(self) -> None:
        """The same off a request's path, and out of the way of a burst of runs. Where it fails, the next run makes its
        own or finds out why."""
        if self._spare is not None:  # nothing is urgent: the answer goes out first
            await asyncio.sleep(SPARE_WAIT_SECONDS)
        for _ in range(SPARE_WAITS):
            if self._machinery.runs.under_way < BUSY:
                break
            await asyncio.sleep(SPARE_WAIT_SECONDS)
        self.sweep()
        await self.make_room()
        try:
            await self.ready_spare()
        except (SandboxGone, BuntimeError, OSError) as gone:
            log.info("no_spare", sandbox=self._sandbox, reason=str(gone))

    def _first_number(self) -> int:
        taken = [int(run[1:]) for run in self._machinery.cgroups.runs(self._sandbox) if run[1:].isdecimal()]
        return max(taken, default=0) + 1

    # --- its sleep ---

    async def fall_asleep(self) -> None:
        """Before it is frozen: no spare is under way then, and none is made before `wake`."""
        self._sleeps = True
        async with self._preparing:
            pass

    def wake(self) -> None:
        """It is frozen no longer, or was not."""
        self._sleeps = False
        self._wakes += 1

    # --- a guest that is to be trusted no longer ---

    async def in_time[T](self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Raises SandboxGone when the guest does not answer in time, and ends the sandbox unless it slept meanwhile."""
        wakes = self._wakes
        try:
            async with asyncio.timeout(seconds), self.ending_an_impostor():
                return await work
        except TimeoutError:
            if not self._sleeps and self._wakes == wakes:
                await self.kill_sandbox()
            raise SandboxGone("the guest does not answer") from None

    @asynccontextmanager
    async def ending_an_impostor(self) -> AsyncIterator[None]:
        """It costs us work with each answer: the session has to start again before it can do so again."""
        try:
            yield
        except Impostor:
            await self.kill_sandbox()
            raise


async def _coroutine[T](work: Awaitable[T]) -> T:
    return await work


def _pid_inside(host_pid: int) -> int:
    """The pid that a process has in the innermost namespace. Raises OSError when it is gone."""
    for line in Path(f"/proc/{host_pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return -1


def has_ended(pidfd: int, milliseconds: int) -> bool:
    """Whether the process has ended, waiting that long for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
