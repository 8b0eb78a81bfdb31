"""One running sandbox. Implements `ports.Sandbox`. What a run is started by: see `launcher.py`."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buntime.egress import rules_of
from buntime.errors import BuntimeError
from buntime.inside import Contexts, Files, Processes, Sink, Stream, Terminals
from buntime.ports import Kind, Observed, Run, RunResult, SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Unfit
from buntime.sandboxes.guest.outcomes import Outcome
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside.contexts import GuestContexts
from buntime.sandboxes.inside.files import GuestFiles
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare, has_ended
from buntime.sandboxes.inside.prepared import Prepared
from buntime.sandboxes.inside.processes import GuestProcesses
from buntime.sandboxes.inside.terminals import GuestTerminals
from buntime.sandboxes.kernel.cgroup import RunUsage
from buntime.sandboxes.kernel.reclaim import Reclaim
from buntime.sandboxes.machinery import Machinery
from buntime.sandboxes.record import Record
from buntime.session import Network as NetworkRules

TIMEOUT_EXIT = 124
FREEZE_SECONDS, FREEZE_LOOK_SECONDS = 5.0, 0.002
GRACE_SECONDS, GRACE_LOOK_SECONDS = 3.0, 0.01  # for processes to end after SIGTERM: databases write what they hold
TELL_SECONDS = 1.0  # for the guest to hear of it


class WatchedSink:
    """A sink, and whether it is busy: then it is not the guest that is waited for."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.busy = False
        self.taken = 0  # times

    async def __call__(self, stream: Stream, content: bytes) -> None:
        self.busy = True
        try:
            await self._sink(stream, content)
        finally:
            self.busy = False
            self.taken += 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run in its guest's words, and what was done to it."""

    outcome: Outcome
    timed_out: bool  # then its whole tree was killed
    met_limit: bool  # on processes: the same


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
        self._reclaim = Reclaim(machinery.cgroups.reclaiming(record.sandbox), machinery.reclaims, machinery.tasks)
        self._launcher = Launcher(record.sandbox, directory / "runs", guest, machinery, self.is_alive, self.kill)
        self._prepared = Prepared(record.sandbox, guest, self._launcher, machinery)
        self._processes = GuestProcesses(guest, self._launcher, machinery)
        self._contexts = GuestContexts(guest, self._launcher, machinery)
        self._terminals = GuestTerminals(guest, self._launcher, machinery)
        self._files = GuestFiles(guest, self._launcher, self)

    @property
    def id(self) -> str:
        return self.record.sandbox

    @property
    def address(self) -> str:
        return self._address

    @property
    def processes(self) -> Processes:
        return self._processes

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

    async def kill(self) -> None:
        """SIGKILL to its init: the kernel ends every process of its pid namespace with it."""
        if self._init < 0:
            return
        init, self._init = self._init, -1
        try:
            signal.pidfd_send_signal(init, signal.SIGKILL)
            self._let_go()  # on cgroup v1 a frozen process does not even die
            await asyncio.to_thread(has_ended, init, 10_000)
        except ProcessLookupError:
            pass
        finally:
            os.close(init)

    async def freeze(self) -> bool:
        frozen = False
        try:
            await self._launcher.fall_asleep()
            await self._prepared.drop()
            await self._contexts.settled()
            frozen = await self._freeze_all()
            return frozen
        finally:
            if not frozen:
                self._let_go()

    async def _freeze_all(self) -> bool:
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + FREEZE_SECONDS
        cgroups.freeze(self.id, True)
        while not cgroups.is_frozen(self.id):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(FREEZE_LOOK_SECONDS)
            cgroups.freeze(self.id, True)  # on cgroup v1 a process that was forking meanwhile needs telling again
        self._reclaim.frozen()
        return True

    async def quiesce(self) -> bool:
        self._let_go()
        await self._tell_of_deep_sleep(self._processes.ending("deep_sleep"))
        await self._tell_of_deep_sleep(self._contexts.ending())
        await self._tell_of_deep_sleep(self._terminals.ending("deep_sleep"))  # a shell there does not mind SIGTERM
        cgroups, deadline = self._machinery.cgroups, time.monotonic() + GRACE_SECONDS
        cgroups.terminate(self.id)
        while cgroups.session_processes(self.id) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(GRACE_LOOK_SECONDS)
        await self._tell_of_deep_sleep(self._processes.settle())
        if not await self.freeze():
            return False
        await self._machinery.sync.done(self._machinery.volumes.sync)  # others that go down now share it
        return True

    async def _tell_of_deep_sleep(self, telling: Coroutine[Any, Any, None]) -> None:
        """So that what ends now says why. A guest that does not hear it changes nothing."""
        with suppress(SandboxGone, BuntimeError, TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await telling

    async def thaw(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._reclaim.thawed()
        with suppress(FileNotFoundError):
            self._machinery.cgroups.freeze(self.id, False)
        self._launcher.wake()

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
        await self._launcher.take_over()
        await self._contexts.take_over()

    async def ready_spare(self) -> None:
        """Parks a process for the next run where there is none."""
        await self._launcher.ready_spare()

    async def keep_spare(self) -> None:
        """The same off a request's path; a failure is only logged."""
        await self._launcher.keep_spare()

    # --- runs ---

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        started = time.monotonic()
        env = {**self._machinery.env, **run.env}
        with self._machinery.runs.one():
            attempt, spare = await self._started(run, env, sink)
        wall_ms = int((time.monotonic() - started) * 1000)
        usage = self._launcher.usage(spare.run)
        result = _result(attempt, usage, wall_ms, disk_full=self._is_full(attempt))
        self._launcher.finish(spare.run)
        self._prepared.follow(run, env)
        return result

    async def _started(self, run: Run, env: Mapping[str, str], sink: Sink | None) -> tuple[Attempt, Spare]:
        """By the prepared process, where that fits, else by a spare."""
        await self._launcher.make_room()
        prepared = self._prepared.take(run, env)
        if prepared is not None:
            self._launcher.watch(prepared.run)
            try:
                attempt = await self._attempt(prepared, run, env, sink, prepared=True)
            except Unfit:
                self._prepared.missed()
            else:
                self._prepared.used()
                return attempt, prepared
        return await self._launcher.launch(lambda spare: self._attempt(spare, run, env, sink))

    async def _attempt(
        self, spare: Spare, run: Run, env: Mapping[str, str], sink: Sink | None, *, prepared: bool = False
    ) -> Attempt:
        watched = None if sink is None else WatchedSink(sink)
        running = asyncio.ensure_future(run_program(self._guest, spare.pid, run, env, watched, prepared=prepared))
        try:
            done, _ = await asyncio.wait({running}, timeout=run.timeout)
            timed_out = not done
            met_limit = self._launcher.met_limit(spare.run)
            if timed_out or met_limit:
                killed = await asyncio.to_thread(self._launcher.kill_run, spare.run)
                done = await self._last_words(running, watched)
                if not killed or not done:
                    await self.kill()
                    raise SandboxGone("the guest does not answer after the run was killed")
            async with self._launcher.ending_an_impostor():
                return Attempt(running.result(), timed_out, met_limit)
        finally:
            if not running.done():
                # nobody waits for the answer any more: what would be nobody's must not run on
                running.cancel()
                self._end_behind(spare.run)
            elif running.exception() is not None:
                self._end_behind(spare.run)

    async def _last_words(self, running: asyncio.Future[Outcome], sink: WatchedSink | None) -> set[Any]:
        """What a killed program had written is still taken, however slowly a client reads, as long as it goes on."""
        while True:
            before = sink and sink.taken
            done, _ = await asyncio.wait({running}, timeout=ANSWER_SECONDS)
            if done or sink is None or (sink.taken == before and not sink.busy):
                return done

    def _end_behind(self, run: str) -> None:
        self._machinery.tasks.start(asyncio.to_thread(self._launcher.end, run), f"end {run} of {self.id}")

    def _is_full(self, attempt: Attempt) -> bool:
        """Asked only where it can matter: of a run that failed."""
        failed = not attempt.timed_out and attempt.outcome.end.exit_code != 0
        return failed and self._machinery.volumes.is_full(self.id)

    # --- the rest ---

    async def observe(self) -> Observed:
        processes = self._machinery.cgroups.session_processes(self.id, leave_out=self._parked())
        async with self._launcher.ending_an_impostor():
            return Observed(await self._guest.count_files(), processes)

    def _parked(self) -> list[str]:
        return [*self._launcher.parked(), *self._prepared.parked()]

    async def restrict(self, network: NetworkRules) -> None:
        await asyncio.to_thread(self._machinery.network.restrict, self.record.slot, rules_of(network))


def _result(attempt: Attempt, usage: RunUsage, wall_ms: int, *, disk_full: bool) -> RunResult:
    end, timed_out = attempt.outcome.end, attempt.timed_out
    return RunResult(
        stdout=attempt.outcome.stdout,
        stderr=attempt.outcome.stderr,
        truncated=end.truncated,
        exit_code=TIMEOUT_EXIT if timed_out else end.exit_code,
        wall_ms=wall_ms,
        cpu_ms=usage.cpu_ms,
        peak_memory=usage.peak_memory,
        timed_out=timed_out,
        out_of_memory=usage.memory_kills > 0,
        disk_full=disk_full,
        met_process_limit=attempt.met_limit,
        files_written=end.files_written,
        files_written_truncated=end.files_written_truncated,
    )
