"""The prepared process of a session: a Bun that has started and waits for the code of the next run.

It is made when the session has been quiet for a moment after a run of code, for the same environment and directory.
The pool also has one made for the first run of a session (`ahead`).
Like every run it has its own cgroup. When it is used, the guest checks that it still equals a fresh start
(`guest/native/runs/prepared.c`). If it does not, or if there is none, the run starts from a plain spare. So does a run
whose process ended before it could start the program, because it was killed. It serves one run. A session has none
while it sleeps, while it is short of memory or CPU time, and when it has not run code for a while.
"""

import asyncio
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, replace

import msgspec
import structlog

from buntime.daemon.tasks import to_its_end
from buntime.errors import BuntimeError
from buntime.plan import MB
from buntime.ports import Run, SandboxGone
from buntime.sandboxes.guest.client import Guest, Nothing
from buntime.sandboxes.guest.failures import SpareGone, Unfit
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, BUSY, Launcher, Spare
from buntime.sandboxes.machinery import Machinery

log = structlog.get_logger()

QUIET_SECONDS = 0.01  # after a run: the next one may follow at once and then has the CPU to itself
SHORT_SECONDS = 0.2  # the same when the session has used up its share of the CPU
UNUSED_SECONDS = 60.0  # after which it is ended
LEAST_FREE, LEAST_FREE_PART = 64 * MB, 1 / 4  # of the session's memory
LONGEST_CODE = 16 << 10  # bytes
MOST_MISSES, MISSED_SECONDS = 3, 60.0  # after so many misses in a row, none is made for so long


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """What a process is prepared for. It fits only a run with the same values."""

    env: Mapping[str, str]
    working_dir: str


@dataclass(frozen=True, slots=True)
class Waiting:
    spare: Spare
    environment: RunEnvironment
    expiry: asyncio.TimerHandle | None  # None: until the sandbox is claimed

    def stop_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()


class Prepared:
    """The prepared process of one sandbox."""

    def __init__(self, sandbox: str, guest: Guest, launcher: Launcher, machinery: Machinery) -> None:
        self._sandbox = sandbox
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery
        self._waiting: Waiting | None = None
        self._last: RunEnvironment | None = None
        self._is_parked = False  # no session has claimed the sandbox
        self._begun: Spare | None = None  # about to become `_waiting`
        self._making = asyncio.Lock()
        self._turn = 0  # counts runs: a process that was begun in an earlier turn is no longer wanted
        self._throttled: int | None = None  # the kernel's count when it was last read
        self._misses = 0
        self._not_before = 0.0

    def parked(self) -> list[str]:
        """Cgroups of processes that wait for their first use, or soon will."""
        return [spare.run for spare in (self._begun, self._waiting and self._waiting.spare) if spare]

    @property
    def is_there(self) -> bool:
        return self._waiting is not None or self._begun is not None

    async def ahead(self, env: Mapping[str, str], working_dir: str) -> None:
        """Makes one in a parked sandbox. It lives until the sandbox is claimed, and then for as long as any."""
        self._is_parked = True
        try:
            async with self._machinery.turns.one(), self._making:
                await self._launcher.in_time(self._guest.rehearse(), ANSWER_SECONDS, ends=False)
                await self._keep(RunEnvironment(env, working_dir), self._turn)
        except (SandboxGone, BuntimeError, OSError) as gone:
            log.info("no_prepared_process", sandbox=self._sandbox, reason=str(gone))

    def claimed(self, *, fits: bool) -> None:
        """A session has claimed the sandbox. `fits`: Bun would start in the same way with its limits."""
        self._is_parked = False
        if not fits:
            self._machinery.tasks.start(self.drop(), f"drop the prepared process of {self._sandbox}")
        elif self._waiting is not None and self._waiting.expiry is None:
            self._waiting = replace(self._waiting, expiry=self._expiry())

    def take(self, run: Run, env: Mapping[str, str]) -> Spare | None:
        """The prepared process if it may fit this run. It then belongs to the caller, who calls `used` or `missed`."""
        self._turn += 1
        if (
            not _can_serve(run)
            or self._waiting is None
            or self._waiting.environment != RunEnvironment(env, run.working_dir)
        ):
            return None
        return self._give_up()

    def missed(self, reason: str) -> None:
        """The process did not fit its run, or ended before it could start the program."""
        log.info("prepared_process_missed", sandbox=self._sandbox, reason=reason)
        self._misses += 1
        if self._misses >= MOST_MISSES:
            self._back_off()

    def used(self) -> None:
        self._misses = 0

    def follow(self, run: Run, env: Mapping[str, str]) -> None:
        """Prepares for the next run, which may be like the last run of code."""
        self._turn += 1
        if run.code is not None:
            self._last = RunEnvironment(env, run.working_dir)
        if self._last is not None:
            making = self._follow(self._last, self._turn)
            self._machinery.tasks.start(making, f"prepared process for {self._sandbox}")

    async def drop(self) -> None:
        """Ends the process, and waits until none is being made."""
        self._turn += 1
        async with self._making:
            await self._end_waiting()

    async def _follow(self, environment: RunEnvironment, turn: int) -> None:
        try:
            while turn == self._turn:
                await asyncio.sleep(SHORT_SECONDS if self._is_throttled() else QUIET_SECONDS)
                await self._machinery.rush.over()
                if turn == self._turn and not self._is_throttled():
                    async with self._machinery.turns.one(), self._making:
                        await self._keep(environment, turn)
                    return
        except (SandboxGone, OSError) as gone:
            log.info("no_prepared_process", sandbox=self._sandbox, reason=str(gone))

    async def _keep(self, environment: RunEnvironment, turn: int) -> None:
        """Keeps the waiting process if it fits the environment. Otherwise makes a new one if that makes sense."""
        if self._waiting is not None and self._waiting.environment == environment:
            self._waiting.stop_expiry()
            self._waiting = replace(self._waiting, expiry=self._expiry())
            return
        await self._end_waiting()
        busy = self._machinery.runs.under_way >= BUSY
        early = asyncio.get_running_loop().time() < self._not_before
        if turn != self._turn or busy or early or not self._has_room():
            return
        self._begun = spare = await self._launcher.another()
        try:
            await self._launcher.in_time(self._prepare(spare, environment), ANSWER_SECONDS, ends=False)
            self._waiting = Waiting(spare, environment, self._expiry())
        except (Unfit, SpareGone, BuntimeError, SandboxGone):  # SandboxGone: it may be only slow, on a busy host
            self._back_off()
        finally:
            try:
                if self._waiting is None:  # also after a cancellation: nobody else knows the process
                    await to_its_end(asyncio.to_thread(self._launcher.end, spare.run))
            finally:
                self._begun = None

    async def _prepare(self, spare: Spare, environment: RunEnvironment) -> None:
        body = msgspec.json.encode({"env": dict(environment.env), "cwd": environment.working_dir})
        await self._guest.call("POST", "/spares/prepare", {"spare": str(spare.pid)}, Nothing, body)

    def _expiry(self) -> asyncio.TimerHandle | None:
        if self._is_parked:
            return None
        return asyncio.get_running_loop().call_later(UNUSED_SECONDS, self._expire, context=Context())

    def _expire(self) -> None:
        if spare := self._give_up():
            asyncio.get_running_loop().run_in_executor(None, self._launcher.end, spare.run)

    async def _end_waiting(self) -> None:
        if spare := self._give_up():
            await asyncio.to_thread(self._launcher.end, spare.run)

    def _give_up(self) -> Spare | None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        waiting.stop_expiry()
        return waiting.spare

    def _back_off(self) -> None:
        self._misses = 0
        self._not_before = asyncio.get_running_loop().time() + MISSED_SECONDS

    def _has_room(self) -> bool:
        free, limit = self._machinery.cgroups.memory_free(self._sandbox)
        return free >= max(LEAST_FREE, limit * LEAST_FREE_PART)

    def _is_throttled(self) -> bool:
        """Whether the session has had to wait for CPU time since the last call."""
        before, self._throttled = self._throttled, self._machinery.cgroups.throttled(self._sandbox)
        return before is not None and self._throttled != before


def _can_serve(run: Run) -> bool:
    return run.code is not None and not run.stdin and run.parts is None and len(run.code.encode()) <= LONGEST_CODE
