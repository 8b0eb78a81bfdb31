"""Running one program to its end, in its own cgroup. Implements `ports.Sandbox.run`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from buntime.inside import Sink
from buntime.ports import Run, RunResult, SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Unfit
from buntime.sandboxes.guest.outcomes import Outcome
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare
from buntime.sandboxes.inside.prepared import Prepared
from buntime.sandboxes.inside.sinks import WatchedSinks
from buntime.sandboxes.kernel.cgroup import NO_USAGE, RunUsage
from buntime.sandboxes.kernel.cgroup_tree import OpenFiles
from buntime.sandboxes.machinery import Machinery

TIMEOUT_EXIT = 124


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run as the guest reports it, and what the host did to it."""

    outcome: Outcome
    timed_out: bool  # its cgroup was killed
    met_limit: bool  # on processes; its cgroup was killed
    usage: RunUsage


class GuestRuns:
    def __init__(
        self,
        guest: Guest,
        launcher: Launcher,
        prepared: Prepared,
        machinery: Machinery,
        disk_is_full: Callable[[float], Awaitable[bool]],
    ) -> None:
        self._guest = guest
        self._launcher = launcher
        self._prepared = prepared
        self._machinery = machinery
        self._disk_is_full = disk_is_full

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        started = time.monotonic()
        env = {**self._launcher.env, **run.env}
        with self._machinery.runs.one():
            attempt, spare = await self._started(run, env, sink)
        wall_ms = int((time.monotonic() - started) * 1000)
        try:
            result = _result(attempt, wall_ms, disk_full=await self._is_full(attempt, started))
        except BaseException:  # the caller has left, or the sandbox is gone: nothing may run on for nobody
            self._launcher.end_later(spare.run)
            raise
        self._launcher.finish(spare.run)
        asyncio.get_running_loop().call_soon(self._prepared.follow, run, env)  # behind the answer
        return result

    async def _started(self, run: Run, env: Mapping[str, str], sink: Sink | None) -> tuple[Attempt, Spare]:
        """Runs the program in the prepared process if that fits, otherwise in a spare."""
        await self._launcher.make_room()
        prepared = self._prepared.take(run, env)
        if prepared is not None:
            attempt = await self._in_prepared(prepared, run, env, sink)
            if attempt is not None:
                self._prepared.used()
                return attempt, prepared
        return await self._launcher.launch(lambda spare: self._attempt(spare, run, env, sink))

    async def _in_prepared(
        self, prepared: Spare, run: Run, env: Mapping[str, str], sink: Sink | None
    ) -> Attempt | None:
        """None when the program has certainly not started, and another process can still run it."""
        self._launcher.watch(prepared.run)
        try:
            attempt = await self._attempt(prepared, run, env, sink, prepared=True)
        except Unfit as unfit:
            self._prepared.missed(f"changed: {str(unfit)!r}")
            return None
        if attempt.outcome.end.started or attempt.timed_out:
            return attempt
        self._prepared.missed("ended")
        self._launcher.end_later(prepared.run)
        return None

    async def _attempt(
        self, spare: Spare, run: Run, env: Mapping[str, str], sink: Sink | None, *, prepared: bool = False
    ) -> Attempt:
        """Awaits the guest's answer in this task: another one would cost each run two turns of the loop."""
        sinks, loop = WatchedSinks(sink), asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()  # the guest has answered, or nobody waits for it
        killing: asyncio.Task[None] | None = None

        def time_out() -> None:
            nonlocal killing
            killing = asyncio.create_task(self._kill(spare.run, over, sinks), name=f"timeout of {spare.run}")
            killing.add_done_callback(killed)

        def killed(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and done.exception() is not None and not over.done():
                answering.reschedule(loop.time())  # the guest does not answer

        figures = OpenFiles()
        timer = loop.call_later(run.timeout, time_out)
        opening = loop.call_soon(self._open, spare.run, figures)  # most often behind the request
        try:
            async with asyncio.timeout(None) as answering, self._launcher.ending_an_impostor():
                outcome = await run_program(self._guest, spare.pid, run, env, sinks.sink, prepared=prepared)
            timer.cancel()
            over.set_result(None)
            met_limit = self._launcher.met_limit(spare.run, figures.text_of)
            if killing is not None:
                await killing
            elif met_limit:
                await self._kill(spare.run, over, sinks)
            has_run = outcome.end.started or killing is not None
            usage = self._launcher.usage(spare.run, figures.text_of) if has_run else NO_USAGE
            return Attempt(outcome, killing is not None, met_limit, usage)
        except BaseException as failure:  # the caller has left, too: nothing may run on for nobody
            self._launcher.end_later(spare.run)
            if killing is not None:
                if isinstance(failure, TimeoutError) and killing.done():
                    killing.result()  # raises why
                killing.cancel()
            raise
        finally:
            timer.cancel()
            opening.cancel()
            if not over.done():
                over.set_result(None)
            loop.call_soon(figures.close)  # behind the answer

    def _open(self, run: str, figures: OpenFiles) -> None:
        """Opens the files of the run's figures by reading them, so that they are open when the program has ended."""
        with suppress(SandboxGone):  # the run itself will find that
            self._launcher.met_limit(run, figures.text_of)
            self._launcher.usage(run, figures.text_of)

    async def _kill(self, run: str, over: asyncio.Future[None], sinks: WatchedSinks) -> None:
        """Kills the run's processes and waits for what they had written. Raises SandboxGone when that fails.

        On a fenced host, it waits for the thaw: a frozen process does not end, and a frozen guest tells nothing.
        """
        while True:
            await self._launcher.until_thawed()
            thaws = self._launcher.thaws()
            killed = await asyncio.to_thread(self._launcher.kill_run, run)
            if await sinks.drained(over, ANSWER_SECONDS) and killed:
                return
            if not self._launcher.was_fenced(thaws):
                await self._launcher.kill_sandbox()
                raise SandboxGone("the guest does not answer after the run was killed")

    async def _is_full(self, attempt: Attempt, started: float) -> bool:
        """Only a failed run asks, because only there does it matter."""
        failed = not attempt.timed_out and attempt.outcome.end.exit_code != 0
        return failed and await self._disk_is_full(started)


def _result(attempt: Attempt, wall_ms: int, *, disk_full: bool) -> RunResult:
    end, timed_out, usage = attempt.outcome.end, attempt.timed_out, attempt.usage
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
