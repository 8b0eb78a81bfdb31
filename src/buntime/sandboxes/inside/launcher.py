"""Starts everything that a session runs, each in its own cgroup.

Everything is started by a *spare*: a process that the guest has parked and that the host has moved into its own cgroup
beforehand. All descendants are born in that cgroup, so the kernel itself reports their peak memory, CPU time, memory
kills and end. The next spare is made after a start, not on its path.

A spare of a parked sandbox has no memory cgroup yet: each one costs memory for each file system of the host. It gets
one shortly before or when the sandbox is claimed (`pool.py`), and before any code of a session runs there.

A marker file per cgroup says what lives in it. The file is empty while a client waits for a run. It holds the kind and
name of a process, context or terminal. It is gone when a run has been answered, even if the run left something behind.
"""

import asyncio
import itertools
import os
import select
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from buntime.daemon.tasks import to_its_end
from buntime.errors import BuntimeError
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Impostor, SpareGone
from buntime.sandboxes.inside.markers import Lives, read_marker
from buntime.sandboxes.kernel.cgroup import RUN_PIDS, RunUsage
from buntime.sandboxes.kernel.cgroup_tree import Read, text_of
from buntime.sandboxes.kernel.process_limit import ProcessLimit
from buntime.sandboxes.machinery import Machinery

log = structlog.get_logger()

ANSWER_SECONDS = 10.0  # that the guest has to answer, beyond a run's own time
THAWED_SECONDS = 0.1  # between looks at whether a fenced sandbox goes on
SPARE_TRIES = 3
BUSY = 2 * (os.cpu_count() or 1)  # runs under way from which on preparations wait …
SPARE_WAITS, SPARE_WAIT_SECONDS = 10, 0.02  # … this long at most
CROWDED_PIDS = RUN_PIDS // 2  # from which on background runs that met the process limit are ended


@dataclass(frozen=True, slots=True)
class Spare:
    pid: int  # inside the sandbox
    run: str  # its cgroup
    is_counted: bool = True  # its memory too, see `Cgroups.count_memory`


class Launcher:
    """`kill`: ends the sandbox when its guest does not answer or is an impostor."""

    def __init__(
        self,
        sandbox: str,
        markers: Path,
        guest: Guest,
        machinery: Machinery,
        is_alive: Callable[[], bool],
        kill: Callable[[], Awaitable[None]],
        started: Callable[[], None],
    ) -> None:
        """`started`: called whenever something of the session starts."""
        self._sandbox = sandbox
        self._markers = str(markers)  # a path object that is kept takes several times as much memory
        self._guest = guest
        self._machinery = machinery
        self._is_alive = is_alive
        self._kill = kill
        self._started = started
        self.image_env: Mapping[str, str] = {}  # of what the image sets
        self._spare: Spare | None = None
        self._preparing = asyncio.Lock()
        self._parking: set[str] = set()  # cgroups of processes that are about to be parked
        self._sleeps = False  # frozen, or about to be
        self._wakes = 0  # times
        self._left: dict[str, Lives] = {}  # cgroups of what runs in the background
        self._names: dict[str, str] = {}  # cgroup → id of its context or terminal
        self._held: set[str] = set()  # cgroups whose figures are still needed
        self._limits: dict[str, ProcessLimit] = {}  # of the watched cgroups
        self._numbers = itertools.count(self._first_number())
        markers.mkdir(exist_ok=True)

    @property
    def sandbox(self) -> str:
        return self._sandbox

    @property
    def env(self) -> Mapping[str, str]:
        """For everything that is started; a request may override it."""
        return {**self.image_env, **self._machinery.env}

    async def take_over(self) -> None:
        """Ends runs whose client is gone and keeps what runs in the background, after a restart of the server."""
        kinds: dict[str, Lives] = {}
        for run in await asyncio.to_thread(os.listdir, self._markers):
            lives, name = read_marker(await asyncio.to_thread(Path(self._markers, run).read_text))
            if lives is not None:
                kinds[run] = lives
                self._names |= {run: name} if name else {}
            else:
                await asyncio.to_thread(self.end, run)
        self._left = {run: kinds.get(run, "run") for run in self._machinery.cgroups.runs(self._sandbox)}
        self.sweep()
        for run in self._left:
            self.watch(run)

    async def launch[T](self, start: Callable[[Spare], Awaitable[T]]) -> tuple[T, Spare]:
        """Runs `start` on a spare. A spare that is gone is replaced. If the guest refuses, the spare is ended."""
        for _ in range(SPARE_TRIES):
            spare = await self._take()
            self.watch(spare.run)
            try:
                return await start(spare), spare
            except SpareGone:
                await asyncio.to_thread(self.end, spare.run)
            except BuntimeError:  # its process is still parked, and nobody would use it
                await asyncio.to_thread(self.end, spare.run)
                raise
        raise SandboxGone("the session ends every process that is parked for a run")

    async def background[T](
        self, lives: Lives, start: Callable[[Spare], Awaitable[T]], name: str = ""
    ) -> tuple[T, str]:
        """Runs `start` on a spare that then goes on in the background. Returns the result and the cgroup. On a failure
        nothing is left. `name`: see `named`."""

        async def started(spare: Spare) -> T:
            try:
                return await self.in_time(_coroutine(start(spare)), ANSWER_SECONDS)
            except BaseException as failed:
                if not isinstance(failed, (SpareGone, BuntimeError)):  # for those see `launch`
                    self.end_later(spare.run)
                raise

        await self.make_room()
        result, spare = await self.launch(started)
        try:
            self.finish(spare.run, lives, name)
        except OSError as full:
            self.end_later(spare.run)
            raise SandboxGone("what was started cannot be noted") from full
        return result, spare.run

    def finish(self, run: str, lives: Lives = "run", name: str = "") -> None:
        """Marks what lives in the cgroup as the session's background, and makes the next spare."""
        if lives == "run":
            self._unmark(run)
        else:
            Path(self._markers, run).write_text(f"{lives} {name}".strip())
        self._left[run] = lives
        self._names |= {run: name} if name else {}
        asyncio.get_running_loop().call_soon(self._keep_spare_behind)

    def _keep_spare_behind(self) -> None:
        """Called when the answer is out."""
        self._machinery.tasks.start(self.keep_spare(), f"spare for {self._sandbox}")

    def named(self, name: str) -> str | None:
        """The cgroup of the living thing with this name. It is still known after a restart of the server."""
        return next((run for run, known in list(self._names.items()) if known == name), None)

    def usage(self, run: str, read: Read = text_of) -> RunUsage:
        """Raises SandboxGone. `read`: see `OpenFiles`."""
        try:
            return self._machinery.cgroups.usage(self._sandbox, run, read)
        except OSError as gone:
            raise SandboxGone("the cgroup of the run is gone") from gone

    def watch(self, run: str, read: Read = text_of, *, used: bool = False) -> None:
        """Watches the cgroup for `met_limit`. `used`: something has run in it before."""
        self._limits.pop(run, None)
        with suppress(OSError):  # the cgroup is gone; its next use fails
            self._limits[run] = ProcessLimit(self._machinery.cgroups, self._sandbox, run, read, used=used)
        self._started()

    async def runs_something(self) -> bool:
        """Whether something of the session runs, or waits, as an idle context does. Not while it sleeps."""
        if self._left and not self._sleeps:
            self._gone(await self._moved(self._removed, list(self._left)))
        return bool(self._left or self._limits) and not self._sleeps

    def met_limit(self, run: str, read: Read = text_of) -> bool:
        """Whether the cgroup has reached the process limit since it is watched."""
        limit = self._limits.get(run)
        return limit is not None and limit.is_met(read)

    async def make_room(self) -> None:
        """Ends what answered runs left behind if it reached the process limit. To be called before something starts."""
        answered = [run for run, lives in list(self._left.items()) if lives == "run"]  # threads change it
        if self._sleeps or not answered:  # asleep: a frozen process does not end
            return
        try:
            if self._machinery.cgroups.processes(self._sandbox) < CROWDED_PIDS:
                return
        except OSError:
            return  # the sandbox is gone; the start fails
        for run in answered:
            if self.met_limit(run):
                await asyncio.to_thread(self.end, run)

    def kill_run(self, run: str) -> bool:
        """Kills all processes of the cgroup. True when none is left. Blocking."""
        if run in self._limits:
            self._limits[run].settle()
        return self._machinery.cgroups.kill_run(self._sandbox, run)

    def end(self, run: str) -> None:
        """Kills everything in the cgroup and forgets it. Blocking, so it runs in threads."""
        self._machinery.cgroups.kill_run(self._sandbox, run)
        self._machinery.cgroups.remove_run(self._sandbox, run)
        self._unmark(run)
        self._forget(run)

    def end_later(self, run: str) -> None:
        """Like `end`, in the background."""
        self._machinery.tasks.start(asyncio.to_thread(self.end, run), f"end {run} of {self._sandbox}")

    def _unmark(self, run: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._markers}/{run}")  # noqa: PTH108 - pathlib takes several times as long

    def _forget(self, run: str) -> None:
        self._left.pop(run, None)
        self._names.pop(run, None)
        self._limits.pop(run, None)
        self._parking.discard(run)

    def live(self, lives: Lives) -> int:
        """How many cgroups of this kind are held or have something living in them."""
        if lives in self._left.values():
            self.sweep()
        return Counter(self._left.values())[lives]

    def hold(self, run: str) -> None:
        """Keeps the cgroup's figures until `release`, even when nothing lives in it any more."""
        self._held.add(run)

    def release(self, run: str) -> None:
        self._held.discard(run)

    def is_alive(self) -> bool:
        return self._is_alive()

    @property
    def is_asleep(self) -> bool:
        """Whether the sandbox is frozen, or about to be."""
        return self._sleeps

    async def kill_sandbox(self) -> None:
        """Never called because a guest is silent that was frozen meanwhile: it cannot answer."""
        await self._kill()

    def sweep(self) -> None:
        """Forgets cgroups in which nothing lives any more."""
        self._gone(self._removed(list(self._left)))

    def _removed(self, runs: Iterable[str]) -> list[str]:
        """Removes those of the cgroups in which nothing lives any more, and returns them. Blocking."""
        remove = self._machinery.cgroups.remove_run
        # asked for each run: this is a thread, and the sandbox may begin to fall asleep meanwhile
        return [run for run in runs if run not in self._held and remove(self._sandbox, run, keep=not self._sleeps)]

    def _gone(self, runs: Iterable[str]) -> None:
        for run in runs:
            self._unmark(run)
            self._forget(run)

    def parked(self) -> list[str]:
        """Cgroups of processes that wait for their first use."""
        return [*self._parking, *([self._spare.run] if self._spare else [])]

    async def another(self) -> Spare:
        """Another parked process, beside the one for the next run. It belongs to the caller. No request waits for it,
        so a guest that does not answer is not ended."""
        return await self._prepare(awaited=False)

    # --- spares ---

    async def _take(self) -> Spare:
        """The parked spare, or the one that is being made."""
        async with self._preparing:
            await self._count_spare()
            spare, self._spare = self._spare, None
            return spare or await self._prepare(awaited=True)

    async def _prepare(self, *, awaited: bool, counted: bool = True) -> Spare:
        """Parks a process in its own cgroup. The guest starts it even if the caller leaves; it is ended then.

        `awaited`: a request waits for it. Then the sandbox is ended if its guest does not answer.
        """
        for _ in range(SPARE_TRIES):
            parking = asyncio.ensure_future(self._park(counted, awaited=awaited))
            try:
                spare = await to_its_end(parking)
            except asyncio.CancelledError:
                if not parking.cancelled() and parking.exception() is None and (left := parking.result()):
                    self.end_later(left.run)
                raise
            if spare is not None:
                # no other task may run between this and the caller's note of the spare: it would count as the session's
                self._parking.discard(spare.run)
                return spare
        raise SandboxGone("no process could be parked for a run")

    async def _park(self, counted: bool, *, awaited: bool) -> Spare | None:
        """None when the guest does not name a process of its own. What is returned counts as about to be parked."""
        asking = asyncio.ensure_future(self._guest.spare())
        try:
            pid = await self.in_time(_coroutine(asyncio.shield(asking)), ANSWER_SECONDS, ends=awaited)
        except BaseException:
            asking.add_done_callback(self._end_late)
            raise
        return await self._enclosed(pid, counted)

    def _end_late(self, asking: asyncio.Future[int]) -> None:
        """Ends a process that the guest has parked too late."""
        if asking.cancelled() or asking.exception() is not None or not self._is_alive():
            return

        async def ended() -> None:
            with suppress(SandboxGone, OSError):
                if late := await self._enclosed(asking.result(), counted=False):
                    self.end_later(late.run)

        self._machinery.tasks.start(ended(), f"end a late spare of {self._sandbox}")

    async def _enclosed(self, pid: int, counted: bool) -> Spare | None:
        spare = Spare(pid, f"r{next(self._numbers)}", is_counted=counted)
        self._parking.add(spare.run)
        try:
            # in a thread: the kernel may wait for a grace period before it moves a process, 5 to 18 ms
            if await self._moved(self._enclose, spare):
                return spare
            await asyncio.to_thread(self.end, spare.run)
        except BaseException as failed:
            self.end_later(spare.run)
            if isinstance(failed, OSError) and not self._is_alive():
                raise SandboxGone("it was killed meanwhile") from failed
            raise
        return None

    async def _moved[T, R](self, work: Callable[[T], R], what: T) -> R:
        """The result of work on cgroups, which may block."""
        return await asyncio.get_running_loop().run_in_executor(self._machinery.movers, work, what)

    def _enclose(self, spare: Spare) -> bool:
        """Gives the process a cgroup of its own. False when the guest does not name one of its own. Blocking."""
        os.close(os.open(f"{self._markers}/{spare.run}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._machinery.cgroups.add_run(self._sandbox, spare.run)
        if spare.is_counted:
            self.sweep()  # the process takes over the memory cgroup of a run that has ended
        return self._place(spare)

    def _place(self, spare: Spare) -> bool:
        """Moves the process into its cgroup. False when the guest does not name one of its own."""
        cgroups = self._machinery.cgroups

        def move(host_pid: int) -> None:
            cgroups.join_run(self._sandbox, spare.run, host_pid)
            if spare.is_counted:
                cgroups.count_memory(self._sandbox, spare.run, host_pid)

        return _with_process(spare.pid, cgroups.guest_processes(self._sandbox), move)

    def _count(self, spare: Spare) -> bool:
        """Counts its memory too. False when it is gone. Blocking."""
        cgroups = self._machinery.cgroups

        def move(host_pid: int) -> None:
            cgroups.count_memory(self._sandbox, spare.run, host_pid)

        return _with_process(spare.pid, cgroups.run_processes(self._sandbox, spare.run), move)

    async def _count_spare(self) -> None:
        spare = self._spare
        if spare is None or spare.is_counted:
            return
        if await self._moved(self._count, spare):
            self._spare = replace(spare, is_counted=True)
        else:
            self._spare = None
            await asyncio.to_thread(self.end, spare.run)

    @property
    def has_uncounted_spare(self) -> bool:
        return self._spare is not None and not self._spare.is_counted

    async def count_spare(self) -> None:
        """Counts the memory of the parked process, which then need not be done on a run's path."""
        async with self._preparing:
            await self._count_spare()

    async def ready_spare(self, *, counted: bool) -> None:
        """Parks a process for the next run if there is none, unless the sandbox sleeps. `counted`: its memory too.

        A guest that does not answer is not ended: on a busy host it may only be slow, and no request waits for it.
        """
        async with self._preparing:
            if self._spare is None and not self._sleeps and self._is_alive():
                self._spare = await self._prepare(awaited=False, counted=counted)

    async def keep_spare(self) -> None:
        """Like `ready_spare`, but stays out of the way of a burst of runs. A failure is only logged: the next run then
        makes its own spare, or fails for the same reason."""
        if self._spare is not None:  # not urgent: the answer goes out first
            await asyncio.sleep(SPARE_WAIT_SECONDS)
            await self._machinery.rush.over()
        for _ in range(SPARE_WAITS):
            if self._machinery.runs.under_way < BUSY:
                break
            await asyncio.sleep(SPARE_WAIT_SECONDS)
        # in a thread, because the kernel may let it wait
        self._gone(await self._moved(self._removed, list(self._left)))
        await self.make_room()
        try:
            await self.ready_spare(counted=True)
        except (SandboxGone, BuntimeError, OSError) as gone:
            log.info("no_spare", sandbox=self._sandbox, reason=str(gone))

    def _first_number(self) -> int:
        taken = [int(run[1:]) for run in self._machinery.cgroups.runs(self._sandbox) if run[1:].isdecimal()]
        return max(taken, default=0) + 1

    # --- sleep ---

    async def fall_asleep(self, *, keeps_spare: bool) -> None:
        """To be called before the freeze. No spare is made from now on until `wake`."""
        self._sleeps = True
        async with self._preparing:
            if not keeps_spare and self._spare is not None:
                spare, self._spare = self._spare, None
                await asyncio.to_thread(self.end, spare.run)
            await self._moved(self._machinery.cgroups.drop_kept, self._sandbox)

    def wake(self) -> None:
        """To be called after a thaw, and when a freeze failed."""
        self._sleeps = False
        self._wakes += 1

    def thaws(self) -> int:
        """How often the host's fence has thawed all sandboxes. See `was_fenced`."""
        return self._machinery.thaws()

    def was_fenced(self, thaws: int) -> bool:
        """Whether something beside the server's own `freeze` has kept the sandbox frozen since there were so many
        `thaws`, or keeps it so now: the host's fence, or a comparison with the rows."""
        # in this order: the fence counts before it thaws
        return self._is_frozen() or self._machinery.thaws() != thaws

    async def until_thawed(self) -> None:
        """Returns when the sandbox is not frozen, which may be never. Raises SandboxGone when it or the server ends."""
        while self._is_frozen():
            if not self._is_alive() or self._machinery.tasks.is_left:
                raise SandboxGone("it is frozen")
            await asyncio.sleep(THAWED_SECONDS)

    def _is_frozen(self) -> bool:
        try:
            return self._machinery.cgroups.is_frozen(self._sandbox)
        except OSError:  # it has ended
            return False

    # --- guests that cannot be trusted ---

    async def in_time[T](
        self, work: Coroutine[Any, Any, T], seconds: float, thaws: int | None = None, *, ends: bool = True
    ) -> T:
        """Raises SandboxGone when the guest does not answer in time. Ends the sandbox then, unless it slept or was
        fenced. `thaws`: of when it was asked, if that was earlier. `ends`: False where no request waits."""
        wakes, thaws = self._wakes, self.thaws() if thaws is None else thaws
        try:
            async with asyncio.timeout(seconds), self.ending_an_impostor():
                return await work
        except TimeoutError:
            if ends and not self._sleeps and self._wakes == wakes and not self.was_fenced(thaws):
                await self.kill_sandbox()
            raise SandboxGone("the guest does not answer") from None

    @asynccontextmanager
    async def ending_an_impostor(self) -> AsyncIterator[None]:
        """Ends the sandbox on Impostor. Each of an impostor's answers costs work, so it must not send another."""
        try:
            yield
        except Impostor:
            await self.kill_sandbox()
            raise


async def _coroutine[T](work: Awaitable[T]) -> T:
    return await work


def _with_process(pid: int, host_pids: Iterable[int], work: Callable[[int], None]) -> bool:
    """Does the work on the one of the host's processes that has this pid inside its sandbox. False when there is none,
    or when it ended meanwhile."""
    for host_pid in host_pids:
        try:
            handle = os.pidfd_open(host_pid)
        except ProcessLookupError:
            continue
        try:
            if _pid_inside(host_pid) == pid:
                work(host_pid)
                # it is still alive, so the pid was not reused and the work was done on the right process
                return not has_ended(handle, 0)
        except OSError:
            return False
        finally:
            os.close(handle)
    return False


def _pid_inside(host_pid: int) -> int:
    """The process's pid in its innermost namespace. Raises OSError when the process is gone."""
    _, _, rest = text_of(f"/proc/{host_pid}/status").partition("\nNSpid:")
    return int(rest.partition("\n")[0].split()[-1]) if rest else -1


def has_ended(pidfd: int, milliseconds: int) -> bool:
    """Whether the process has ended. Waits up to `milliseconds` for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
