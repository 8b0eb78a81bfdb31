"""A frozen guest answers nothing. Background work must not take that for the guest's end."""

import asyncio
import os
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from buntime.daemon.tasks import Tasks
from buntime.inside import NewContext
from buntime.ports import Run, SandboxGone
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.inside import launcher
from buntime.sandboxes.inside.launcher import BUSY, Launcher
from buntime.sandboxes.kernel.cgroup import Cgroups, RunUsage
from buntime.sandboxes.kernel.reclaim import host_swaps
from buntime.sandboxes.machinery import Machinery, Runs
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from tests.unit.scripted_guest import Asked, answering

ANSWER_SECONDS = 0.3
CONTEXT = "ctx_" + "a" * 18
ENDED = b'{"exitCode": 0}'
KILL = LocalSandbox.kill  # the real one


class Kernel:
    """Fake cgroups with the parts that suspending uses."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.killed_frozen: list[str] = []
        self.frozen = False
        self.alive = {"r1"}  # runs of which the process lives
        self.counted: list[str] = []  # runs of which the memory is counted
        self.joined = set[str]()  # runs that have had a process
        self.moves = threading.Event()  # when it is not set, a move of a process waits
        self.moves.set()

    def freeze(self, sandbox: str, frozen: bool) -> None:
        self.frozen = frozen

    def is_frozen(self, sandbox: str) -> bool:
        return self.frozen

    def guest_processes(self, sandbox: str) -> list[int]:
        return [os.getpid()]

    def usage(self, sandbox: str, run: str, read: object = None) -> RunUsage:
        return RunUsage(cpu_ms=0, peak_memory=0, memory_kills=0)

    def processes(self, sandbox: str) -> int:
        return 0

    def refused_forks(self, sandbox: str, run: str, read: object = None) -> int:
        return 0

    def refused_by_session(self, sandbox: str, read: object = None) -> int:
        return 0

    def runs(self, sandbox: str) -> list[str]:
        return []

    def add_run(self, sandbox: str, run: str) -> None: ...
    def join_run(self, sandbox: str, run: str, pid: int) -> None:
        self.joined.add(run)
        assert self.moves.wait(timeout=5), "the server waited for the move"

    def session_processes(self, sandbox: str, leave_out: list[str]) -> int:
        return len(self.joined - set(leave_out))

    def run_processes(self, sandbox: str, run: str) -> list[int]:
        return [os.getpid()] if run in self.alive else []

    def count_memory(self, sandbox: str, run: str, pid: int) -> None:
        assert pid == os.getpid()
        self.counted.append(run)

    def kill_run(self, sandbox: str, run: str) -> bool:
        self.killed.append(run)
        if self.frozen:
            self.killed_frozen.append(run)
        return True

    def remove_run(self, sandbox: str, run: str, *, keep: bool = False) -> bool:
        return True

    def drop_kept(self, sandbox: str) -> None: ...
    def memory_free(self, sandbox: str) -> tuple[int, int]:
        return 1 << 30, 1 << 30


class Rig:
    """A sandbox whose guest answers each question after `seconds`, and only while the sandbox is not frozen."""

    sandbox: LocalSandbox
    launcher: Launcher

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.runs = Runs()
        self.seconds = 0.0
        self.slow = ""  # a path that it does not answer
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.asked_frozen: list[str] = []
        self.counted_when_run: list[str] = []
        self.kills = 0
        self.thaws = 0  # of the fence
        self.run_ends: Callable[[], bool] = lambda: True

    def fence(self) -> None:
        """As the fence does, without the server's sandbox being told."""
        self.kernel.frozen = True

    def lift(self) -> None:
        self.thaws += 1
        self.kernel.frozen = False

    async def kill(self) -> None:
        self.kills += 1

    async def answer(self, request: Asked) -> None:
        self.asked.append(request.path)
        if self.kernel.frozen:
            self.asked_frozen.append(request.path)
        await asyncio.sleep(60 if request.path == self.slow else self.seconds)
        while self.kernel.frozen:  # noqa: ASYNC110 - another task changes it
            await asyncio.sleep(0.005)
        self.answered.append(request.path)
        request.answer(await self._answer(request))

    async def _answer(self, request: Asked) -> bytes:
        match request.path:
            case "/spares":
                return msgspec.json.encode({"pid": os.getpid()})
            case "/run":
                self.counted_when_run = list(self.kernel.counted)
                while not self.run_ends() or self.kernel.frozen:  # noqa: ASYNC110 - another task changes it
                    await asyncio.sleep(0.005)
                return struct.pack(">cI", b"x", len(ENDED)) + ENDED
            case "/contexts/create":
                known = {"id": CONTEXT, "createdAt": 0, "workingDir": "/", "runs": 0, "lost": None}
                return msgspec.json.encode({"context": known, "said": ""})
            case "/contexts/run":
                await asyncio.sleep(60)
            case "/contexts/interrupt":
                return b'{"idle": true}'
        return b"{}"


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    for module in (launcher, "buntime.sandboxes.inside.contexts", "buntime.sandboxes.inside.runs"):
        target = f"{module if isinstance(module, str) else module.__name__}.ANSWER_SECONDS"
        monkeypatch.setattr(target, ANSWER_SECONDS)
    one = Rig()
    async with answering(one.answer) as guest, Links() as links, Tasks() as tasks:
        nothing = cast("Any", None)
        machinery = Machinery(
            cast("Cgroups", one.kernel),
            nothing,
            nothing,
            tasks,
            links,
            {},
            one.runs,
            nothing,
            nothing,
            nothing,
            lambda: one.thaws,
        )
        monkeypatch.setattr(LocalSandbox, "kill", lambda _: one.kill())
        monkeypatch.setattr(LocalSandbox, "is_alive", lambda _: True)
        one.sandbox = LocalSandbox(Record("sbx", 1, "img", "secret"), tmp_path, "127.0.0.1", -1, guest, machinery, {})
        one.launcher = one.sandbox._launcher
        yield one
        one.kernel.frozen = False


async def _until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 - another task changes it
            await asyncio.sleep(0.005)


async def _long() -> None:
    """Waits until everything that waits for an answer has given up."""
    await asyncio.sleep(2 * ANSWER_SECONDS + 0.2)


async def _runs(rig: Rig) -> None:
    assert (await rig.sandbox.run(Run(timeout=10, command="true"))).exit_code == 0


# --- the memory of parked processes ---


async def test_a_parked_sandbox_has_no_run_whose_memory_is_counted(rig: Rig) -> None:
    await rig.sandbox.park()
    assert (len(rig.launcher.parked()), rig.kernel.counted) == (1, [])


async def test_memory_of_a_parked_process_is_counted_before_it_runs_anything(rig: Rig) -> None:
    await rig.sandbox.park()
    await _runs(rig)
    assert rig.counted_when_run == ["r1"]


async def test_memory_that_was_counted_at_the_claim_is_not_counted_again(rig: Rig) -> None:
    await rig.sandbox.park()
    await asyncio.gather(rig.sandbox.count_spare(), rig.sandbox.count_spare())
    assert rig.kernel.counted == ["r1"]
    await _runs(rig)
    assert rig.counted_when_run == ["r1"]


async def test_a_process_that_is_parked_for_a_run_whose_client_leaves_is_ended(rig: Rig) -> None:
    rig.seconds = 0.1
    running = asyncio.create_task(rig.sandbox.run(Run(timeout=10, command="true")))
    await _until(lambda: "/spares" in rig.asked)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await _until(lambda: rig.kernel.killed == ["r1"])


async def test_a_process_that_is_being_parked_is_never_counted_as_one_of_the_session(rig: Rig) -> None:
    counts = set[int]()
    parking = asyncio.create_task(rig.sandbox.park())
    while not parking.done():
        await asyncio.sleep(0)
        counts.add(rig.sandbox.count_processes())
    assert (len(rig.launcher.parked()), counts) == (1, {0})


async def test_the_server_goes_on_while_the_kernel_moves_a_process(rig: Rig) -> None:
    rig.kernel.moves.clear()
    parking = asyncio.create_task(rig.sandbox.park())
    await _until(lambda: rig.kernel.joined)
    assert rig.sandbox.count_processes() == 0
    rig.kernel.moves.set()
    await parking
    assert len(rig.launcher.parked()) == 1


async def test_a_parked_process_that_ended_before_the_claim_is_replaced(rig: Rig) -> None:
    await rig.sandbox.park()
    rig.kernel.alive.clear()
    await rig.sandbox.count_spare()
    assert rig.launcher.parked() == []
    await _runs(rig)
    assert rig.counted_when_run == ["r2"]


async def test_a_guest_that_is_slow_to_park_a_process_that_no_request_waits_for_is_not_ended(rig: Rig) -> None:
    rig.seconds = 2 * ANSWER_SECONDS
    await rig.launcher.keep_spare()
    assert (rig.answered, rig.kills, rig.launcher.parked()) == ([], 0, [])
    await _until(lambda: rig.kernel.killed == ["r1"])  # nobody would use the process that it parked too late
    rig.seconds = 0.0
    await _runs(rig)
    assert rig.kills == 0


async def test_a_guest_that_is_too_slow_to_prepare_a_process_is_not_ended_but_the_process_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buntime.sandboxes.inside.prepared.ANSWER_SECONDS", ANSWER_SECONDS)
    rig.slow = "/spares/prepare"
    await rig.sandbox.prepare()
    assert (rig.kernel.killed, rig.kills, rig.sandbox.is_prepared) == (["r1"], 0, False)
    await _runs(rig)


async def test_a_guest_that_does_not_park_a_process_for_a_request_is_ended(rig: Rig) -> None:
    rig.seconds = 60
    with pytest.raises(SandboxGone):
        await rig.sandbox.run(Run(timeout=10, command="true"))
    assert rig.kills == 1


async def test_a_run_that_meets_the_end_of_its_sandbox_is_told_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(rig.kernel, "add_run", gone)
    monkeypatch.setattr(LocalSandbox, "is_alive", lambda _: False)
    monkeypatch.setattr(rig.launcher, "_is_alive", lambda: False)
    with pytest.raises(SandboxGone):
        await rig.sandbox.run(Run(timeout=10, command="true"))


# --- freezing ---


async def test_a_spare_delayed_by_a_busy_host_is_not_asked_of_a_frozen_guest(rig: Rig) -> None:
    rig.runs.under_way = BUSY
    rig.launcher.finish("r1")
    await asyncio.sleep(0.02)
    assert await rig.sandbox.freeze()
    await _long()
    assert (rig.asked, rig.kills) == ([], 0)
    rig.runs.under_way = 0
    await rig.sandbox.thaw()
    await _runs(rig)
    await _until(lambda: rig.launcher.parked())  # a new process is prepared


async def test_the_freeze_waits_for_a_spare_that_is_being_made(rig: Rig) -> None:
    rig.seconds = 0.1
    rig.launcher.finish("r1")
    await _until(lambda: rig.asked)
    assert await rig.sandbox.freeze()
    assert rig.answered == ["/spares"]
    assert len(rig.launcher.parked()) == (0 if host_swaps() else 1)
    await _long()
    await rig.sandbox.thaw()
    rig.seconds = 0.0
    await _runs(rig)
    assert (rig.asked_frozen, rig.kills) == ([], 0)


async def test_a_freeze_gives_up_when_a_spare_does_not_come_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buntime.sandboxes.sandbox.SETTLE_SECONDS", ANSWER_SECONDS / 3)
    rig.slow = "/spares"
    rig.launcher.finish("r1")
    await _until(lambda: rig.asked)
    assert not await rig.sandbox.freeze()
    assert (rig.kernel.frozen, rig.launcher.is_asleep) == (False, False)
    await _long()  # until nobody waits for the spare
    assert await rig.sandbox.freeze()
    assert rig.kills == 0


async def test_a_sandbox_that_is_killed_while_it_is_being_frozen_is_not_frozen_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On cgroup v1, even SIGKILL does not end a frozen process."""
    child = await asyncio.create_subprocess_exec("sleep", "60")
    rig.sandbox._init = init = os.pidfd_open(child.pid)
    monkeypatch.setattr(rig.kernel, "is_frozen", lambda _: False)
    freezing = asyncio.create_task(rig.sandbox.freeze())
    await _until(lambda: rig.kernel.frozen)
    await asyncio.gather(KILL(rig.sandbox), KILL(rig.sandbox))
    assert not rig.kernel.frozen
    assert not await freezing
    assert not rig.kernel.frozen
    assert await child.wait() != 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(init)


async def test_where_the_host_swaps_a_frozen_sandbox_has_no_spare_and_a_thawed_one_gets_it_before_it_runs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buntime.sandboxes.sandbox.host_swaps", lambda: True)
    await rig.launcher.ready_spare(counted=True)
    assert await rig.sandbox.freeze()
    assert rig.launcher.parked() == []
    await rig.sandbox.thaw()
    await _until(lambda: len(rig.launcher.parked()) == 1)


async def test_a_frozen_sandbox_that_is_only_let_go_makes_no_spare(rig: Rig) -> None:
    assert await rig.sandbox.freeze()
    rig.sandbox.let_go()
    await asyncio.sleep(0.1)
    assert (rig.kernel.frozen, rig.asked, rig.launcher.parked()) == (False, [], [])


@pytest.mark.parametrize("thawed", [False, True])
async def test_a_guest_that_was_frozen_during_a_call_is_not_ended(rig: Rig, thawed: bool) -> None:
    rig.seconds = 60
    assert await rig.sandbox.freeze()
    waiting = asyncio.create_task(rig.launcher.in_time(rig.launcher._guest.check(), ANSWER_SECONDS))
    await _until(lambda: rig.asked)
    if thawed:
        rig.sandbox.let_go()  # a thaw asks the guest for a process, which this one would not answer in time
    with pytest.raises(SandboxGone):
        await waiting
    assert rig.kills == 0


@pytest.mark.parametrize("slept", [False, True])
async def test_a_guest_that_does_not_answer_while_awake_is_ended(rig: Rig, slept: bool) -> None:
    if slept:
        await rig.sandbox.freeze()
        await rig.sandbox.thaw()
    rig.seconds = 60
    with pytest.raises(SandboxGone):
        await rig.launcher.in_time(rig.launcher._guest.check(), ANSWER_SECONDS)
    assert rig.kills == 1


async def test_an_abandoned_context_run_is_ended_before_the_freeze(rig: Rig) -> None:
    await rig.sandbox.contexts.create(NewContext(CONTEXT, {}, "/"))
    running = asyncio.create_task(rig.sandbox.contexts.run(CONTEXT, "for (;;);", 30))
    await _until(lambda: "/contexts/run" in rig.answered)
    rig.seconds = 0.1
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await rig.sandbox.freeze()
    assert "/contexts/interrupt" in rig.answered
    await _long()
    assert (rig.asked_frozen, rig.kills) == ([], 0)


# --- the fence of a host, which freezes from outside ---


@pytest.mark.parametrize("lifted", [False, True])
async def test_a_guest_that_the_fence_froze_during_a_call_is_not_ended(rig: Rig, lifted: bool) -> None:
    """Also if it was thawed just before the time was over."""
    rig.seconds = 60
    waiting = asyncio.create_task(rig.launcher.in_time(rig.launcher._guest.check(), ANSWER_SECONDS))
    await _until(lambda: rig.asked)
    rig.fence()
    if lifted:
        rig.lift()
    with pytest.raises(SandboxGone):
        await waiting
    assert rig.kills == 0


async def test_a_run_whose_time_limit_passes_while_the_host_is_fenced_is_killed_after_the_thaw(rig: Rig) -> None:
    rig.run_ends = lambda: bool(rig.kernel.killed)
    running = asyncio.create_task(rig.sandbox.run(Run(timeout=ANSWER_SECONDS, command="sleep 99")))
    await _until(lambda: "/run" in rig.asked)
    rig.fence()
    await _long()
    rig.lift()
    assert (await running).timed_out
    assert (rig.kernel.killed, rig.kernel.killed_frozen, rig.kills) == (["r1"], [], 0)


async def test_a_run_of_a_fenced_host_is_ended_when_its_client_leaves(rig: Rig) -> None:
    rig.run_ends = lambda: bool(rig.kernel.killed)
    running = asyncio.create_task(rig.sandbox.run(Run(timeout=0.1, command="sleep 99")))
    await _until(lambda: "/run" in rig.asked)
    rig.fence()
    await asyncio.sleep(0.2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await _until(lambda: rig.kernel.killed == ["r1"])
    assert rig.kills == 0


async def test_a_run_that_was_fenced_while_it_was_killed_is_killed_again(rig: Rig) -> None:
    rig.run_ends = lambda: len(rig.kernel.killed) > 1
    running = asyncio.create_task(rig.sandbox.run(Run(timeout=0.1, command="sleep 99")))
    await _until(lambda: rig.kernel.killed)
    rig.fence()
    await _long()
    rig.lift()
    assert (await running).timed_out
    assert rig.kills == 0


async def test_a_run_in_a_context_of_a_fenced_host_is_ended_after_the_thaw(rig: Rig) -> None:
    await rig.sandbox.contexts.create(NewContext(CONTEXT, {}, "/"))
    running = asyncio.create_task(rig.sandbox.contexts.run(CONTEXT, "for (;;);", ANSWER_SECONDS))
    await _until(lambda: "/contexts/run" in rig.answered)
    rig.fence()
    await _long()
    assert "/contexts/interrupt" not in rig.asked
    rig.lift()
    await _until(lambda: "/contexts/interrupt" in rig.answered)
    assert rig.kills == 0
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_server_that_stops_does_not_wait_for_the_thaw(rig: Rig, tmp_path: Path) -> None:
    rig.fence()
    async with asyncio.timeout(5), Tasks() as tasks:
        machinery = replace(rig.sandbox._machinery, tasks=tasks)
        one = LocalSandbox(rig.sandbox.record, tmp_path, "127.0.0.1", -1, rig.launcher._guest, machinery, {})
        tasks.start(one._launcher.until_thawed(), "the end of a run in a context")
        await asyncio.sleep(0.01)
    assert rig.kernel.frozen
