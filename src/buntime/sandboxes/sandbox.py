"""One running sandbox. Implements `ports.Sandbox`.

A run is started by a *spare*: a process that the guest has parked and that the host has moved into a
cgroup of its own beforehand. So all that a run starts is born in its cgroup, and its peak memory, its
CPU time, its deaths and its end are the kernel's word. The next spare is made after a run, off its path.
"""

import asyncio
import itertools
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from buntime.egress import rules_of
from buntime.errors import BuntimeError
from buntime.ports import FileEntry, FileToWrite, Observed, Run, RunResult, SandboxGone
from buntime.sandboxes.cgroup import Cgroups, RunUsage
from buntime.sandboxes.guest import Guest, Impostor, Outcome, SpareGone
from buntime.sandboxes.network import Network
from buntime.sandboxes.reclaim import AT_ONCE, Reclaim
from buntime.sandboxes.record import Record
from buntime.sandboxes.sharing import Shared
from buntime.sandboxes.volume import Volumes
from buntime.session import Network as NetworkRules
from buntime.tasks import Tasks

log = structlog.get_logger()

TIMEOUT_EXIT = 124
ANSWER_SECONDS = 10.0  # for the guest, beyond a run's own time
LOOK_SECONDS = 8.0  # into a file operation, and again: does the guest still answer?
SPARE_TRIES = 3
FREEZE_SECONDS, FREEZE_LOOK_SECONDS = 5.0, 0.002
GRACE_SECONDS, GRACE_LOOK_SECONDS = 3.0, 0.01  # for processes to end after SIGTERM: databases write what they hold
BUSY = 2 * (os.cpu_count() or 1)  # runs under way, from which on other work of ours waits …
SPARE_WAITS, SPARE_WAIT_SECONDS = 10, 0.02  # … so long at the most


class Runs:
    """How many are under way on this host."""

    def __init__(self) -> None:
        self.under_way = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


@dataclass(frozen=True, slots=True)
class Machinery:
    """What all sandboxes of this host share."""

    cgroups: Cgroups
    volumes: Volumes
    network: Network
    tasks: Tasks
    http: aiohttp.ClientSession  # to guests
    env: Mapping[str, str]  # for every run, under what the request asks for
    runs: Runs
    sync: Shared = field(default_factory=Shared)
    reclaims: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


@dataclass(frozen=True, slots=True)
class Spare:
    pid: int  # inside the sandbox
    run: str  # its cgroup


class LocalSandbox:
    def __init__(
        self, record: Record, directory: Path, address: str, init: int, guest: Guest, machinery: Machinery
    ) -> None:
        """`init`: a pidfd of its init, owned from now on."""
        self.record = record
        self._directory = directory
        self._address = address
        self._init = init
        self._guest = guest
        self._machinery = machinery
        self._spare: Spare | None = None
        self._reclaim = Reclaim(machinery.cgroups.reclaiming(record.sandbox), machinery.reclaims, machinery.tasks)
        self._preparing = asyncio.Lock()
        self._left: set[str] = set()  # runs that ended with something still running in the background
        self._numbers = itertools.count(self._first_number())
        self._markers.mkdir(exist_ok=True)

    @property
    def id(self) -> str:
        return self.record.sandbox

    @property
    def address(self) -> str:
        return self._address

    @property
    def _markers(self) -> Path:
        """A file per run that is prepared or under way: what a server that was killed could not finish."""
        return self._directory / "runs"

    # --- life ---

    def is_alive(self) -> bool:
        return self._init >= 0 and not _poll(self._init, 0)

    async def kill(self) -> None:
        """SIGKILL to its init: the kernel ends every process of its pid namespace with it."""
        if self._init < 0:
            return
        init, self._init = self._init, -1
        try:
            signal.pidfd_send_signal(init, signal.SIGKILL)
            self._let_go()  # on cgroup v1 a frozen process does not even die
            await asyncio.to_thread(_poll, init, 10_000)
        except ProcessLookupError:
            pass
        finally:
            os.close(init)

    async def freeze(self) -> bool:
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + FREEZE_SECONDS
        cgroups.freeze(self.id, True)
        while not cgroups.is_frozen(self.id):
            if time.monotonic() > deadline:
                self._let_go()
                return False
            await asyncio.sleep(FREEZE_LOOK_SECONDS)
            cgroups.freeze(self.id, True)  # on cgroup v1 a process that was forking meanwhile needs telling again
        self._reclaim.frozen()
        return True

    async def quiesce(self) -> bool:
        self._let_go()
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + GRACE_SECONDS
        cgroups.terminate(self.id)
        while cgroups.session_processes(self.id) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(GRACE_LOOK_SECONDS)
        if not await self.freeze():
            return False
        await self._machinery.sync.done(self._machinery.volumes.sync)  # others that go down now share it
        return True

    async def thaw(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._reclaim.thawed()
        with suppress(FileNotFoundError):
            self._machinery.cgroups.freeze(self.id, False)

    async def check(self) -> None:
        """Raises SandboxGone unless its guest answers."""
        await self._guest.check()

    async def wait_ready(self, seconds: float) -> None:
        """Until the guest answers. Raises SandboxGone."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                await self._guest.check()
                break
            except SandboxGone:
                if time.monotonic() > deadline or not self.is_alive():
                    raise
                await asyncio.sleep(0.001)

    async def take_over(self) -> None:
        """After a restart of the server: ends runs whose client is gone, keeps what runs in the background."""
        await self._guest.check()
        for marker in list(self._markers.iterdir()):
            await asyncio.to_thread(self._end_run, marker.name)
        self._left = set(self._machinery.cgroups.runs(self.id))
        self._sweep()

    # --- runs ---

    async def run(self, run: Run) -> RunResult:
        started = time.monotonic()
        with self._machinery.runs.one():
            spare, outcome, timed_out = await self._start_and_wait(run)
        wall_ms = int((time.monotonic() - started) * 1000)
        try:
            usage = self._machinery.cgroups.usage(self.id, spare.run)
        except OSError as gone:
            raise SandboxGone("the cgroup of the run is gone") from gone
        result = _result(outcome, usage, wall_ms, timed_out, self._is_full(outcome, timed_out))
        self._finish(spare.run)
        self._machinery.tasks.start(self.keep_spare(), f"spare for {self.id}")
        return result

    async def _start_and_wait(self, run: Run) -> tuple[Spare, Outcome, bool]:
        for _ in range(SPARE_TRIES):
            spare = await self._take_spare()
            try:
                return spare, *await self._attempt(spare, run)
            except SpareGone:
                await asyncio.to_thread(self._end_run, spare.run)
            except BuntimeError:  # the guest refused the run: its process is parked still, and nobody's
                await asyncio.to_thread(self._end_run, spare.run)
                raise
        raise SandboxGone("the session ends every process that is parked for a run")

    async def _attempt(self, spare: Spare, run: Run) -> tuple[Outcome, bool]:
        """What came of it, and whether it ran out of time: then its whole tree was killed."""
        env = {**self._machinery.env, **run.env}
        running = asyncio.ensure_future(self._guest.run(spare.pid, run, env))
        try:
            done, _ = await asyncio.wait({running}, timeout=run.timeout)
            timed_out = not done
            if timed_out:
                killed = await asyncio.to_thread(self._machinery.cgroups.kill_run, self.id, spare.run)
                done, _ = await asyncio.wait({running}, timeout=ANSWER_SECONDS)
                if not killed or not done:
                    await self.kill()
                    raise SandboxGone("the guest does not answer after the run was killed")
            async with self._ending_an_impostor():
                return running.result(), timed_out
        finally:
            if not running.done():
                # nobody waits for the answer any more: what would be nobody's must not run on
                running.cancel()
                self._machinery.tasks.start(
                    asyncio.to_thread(self._end_run, spare.run), f"end {spare.run} of {self.id}"
                )

    async def _take_spare(self) -> Spare:
        """The parked one, also if it is being made just now."""
        async with self._preparing:
            spare, self._spare = self._spare, None
            return spare or await self._prepare()

    async def _prepare(self) -> Spare:
        """A parked process in a cgroup of its own."""
        for _ in range(SPARE_TRIES):
            pid = await self._in_time(self._guest.spare(), ANSWER_SECONDS)
            run = f"r{next(self._numbers)}"
            (self._markers / run).touch()
            self._machinery.cgroups.add_run(self.id, run)
            if self._place(pid, run):
                return Spare(pid, run)
            self._end_run(run)
        raise SandboxGone("no process could be parked for a run")

    def _place(self, pid: int, run: str) -> bool:
        """Moves the process that has this pid inside the sandbox. False where the guest names none of its own."""
        cgroups = self._machinery.cgroups
        for host_pid in cgroups.guest_processes(self.id):
            try:
                handle = os.pidfd_open(host_pid)
            except ProcessLookupError:
                continue
            try:
                if _pid_inside(host_pid) == pid:
                    cgroups.join_run(self.id, run, host_pid)
                    # alive still: then no other process got this number meanwhile, and the right one was moved
                    return not _poll(handle, 0)
            except OSError:
                return False
            finally:
                os.close(handle)
        return False

    async def ready_spare(self) -> None:
        """Parks a process for the next run where there is none."""
        async with self._preparing:
            if self._spare is None and self.is_alive():
                self._spare = await self._prepare()

    async def keep_spare(self) -> None:
        """The same off a request's path, and out of the way of a burst of runs. Where it fails, the next run makes its
        own or finds out why."""
        for _ in range(SPARE_WAITS):
            if self._machinery.runs.under_way < BUSY:
                break
            await asyncio.sleep(SPARE_WAIT_SECONDS)
        self._sweep()
        try:
            await self.ready_spare()
        except (SandboxGone, OSError) as gone:
            log.info("no_spare", sandbox=self.id, reason=str(gone))

    def _finish(self, run: str) -> None:
        """The run is answered: from now on, what it left running is the session's background."""
        (self._markers / run).unlink(missing_ok=True)
        self._left.add(run)

    def _end_run(self, run: str) -> None:
        """Kills all of a run and forgets it."""
        self._machinery.cgroups.kill_run(self.id, run)
        self._machinery.cgroups.remove_run(self.id, run)
        (self._markers / run).unlink(missing_ok=True)

    def _sweep(self) -> None:
        self._left = {run for run in self._left if not self._machinery.cgroups.remove_run(self.id, run)}

    def _is_full(self, outcome: Outcome, timed_out: bool) -> bool:
        """Asked only where it can matter: of a run that failed."""
        return not timed_out and outcome.end.exit_code != 0 and self._machinery.volumes.is_full(self.id)

    def _first_number(self) -> int:
        taken = [int(run[1:]) for run in self._machinery.cgroups.runs(self.id) if run[1:].isdecimal()]
        return max(taken, default=0) + 1

    # --- files and the rest ---

    async def write_files(self, files: Sequence[FileToWrite]) -> Sequence[int]:
        return await self._while_answering(self._guest.write_files(files))

    async def list_files(
        self, path: str, *, recursive: bool, limit: int, offset: int
    ) -> tuple[Sequence[FileEntry], int]:
        listing = self._guest.list_files(path, recursive=recursive, limit=limit, offset=offset)
        return await self._while_answering(listing)

    async def read_file(self, path: str, limit: int) -> bytes:
        return await self._while_answering(self._guest.read_file(path, limit))

    async def delete_file(self, path: str, *, recursive: bool) -> None:
        await self._while_answering(self._guest.delete_file(path, recursive=recursive))

    async def observe(self) -> Observed:
        parked = [self._spare.run] if self._spare else []
        processes = self._machinery.cgroups.session_processes(self.id, leave_out=parked)
        async with self._ending_an_impostor():
            return Observed(await self._guest.count_files(), processes)

    async def _while_answering[T](self, work: Coroutine[Any, Any, T]) -> T:
        """However long it takes, as long as the guest answers beside it: one that was stopped never would."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
                await self._in_time(self._guest.check(), ANSWER_SECONDS)
            async with self._ending_an_impostor():
                return task.result()
        finally:
            task.cancel()

    @asynccontextmanager
    async def _ending_an_impostor(self) -> AsyncIterator[None]:
        """It costs us work with each answer: the session has to start again before it can do so again."""
        try:
            yield
        except Impostor:
            await self.kill()
            raise

    async def _in_time[T](self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Raises SandboxGone, and ends the sandbox, when the guest does not answer in time."""
        try:
            async with asyncio.timeout(seconds), self._ending_an_impostor():
                return await work
        except TimeoutError:
            await self.kill()
            raise SandboxGone("the guest does not answer") from None

    async def restrict(self, network: NetworkRules) -> None:
        await asyncio.to_thread(self._machinery.network.restrict, self.record.slot, rules_of(network))


def _result(outcome: Outcome, usage: RunUsage, wall_ms: int, timed_out: bool, disk_full: bool) -> RunResult:
    end = outcome.end
    return RunResult(
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        truncated=end.truncated,
        exit_code=TIMEOUT_EXIT if timed_out else end.exit_code,
        wall_ms=wall_ms,
        cpu_ms=usage.cpu_ms,
        peak_memory=usage.peak_memory,
        timed_out=timed_out,
        out_of_memory=usage.memory_kills > 0,
        disk_full=disk_full,
        files_written=end.files_written,
        files_written_truncated=end.files_written_truncated,
    )


def _pid_inside(host_pid: int) -> int:
    """The pid that a process has in the innermost namespace. Raises OSError when it is gone."""
    for line in Path(f"/proc/{host_pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return -1


def _poll(pidfd: int, milliseconds: int) -> bool:
    """Whether the process has ended, waiting that long for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
