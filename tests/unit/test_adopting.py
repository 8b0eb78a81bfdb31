"""A start adopts the sandboxes that run, even if some of them misbehave."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from buntime.daemon.tasks import Tasks, cancel_and_wait
from buntime.errors import FileNotFound, Unavailable
from buntime.plan import Limits
from buntime.ports import SandboxGone
from buntime.sandboxes import adopting, local
from buntime.sandboxes import record as records
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.local import LocalSandboxes
from buntime.sandboxes.machinery import Rush
from buntime.sandboxes.record import Record
from buntime.session import DEFAULT_NETWORK, Network, Session, State
from tests.waiting import eventually

LIMITS = Limits(memory=256, cpu=1.0, timeout=30, disk=32)
READY = 0.5  # seconds; replaces READY_SECONDS


async def _never() -> None:
    await asyncio.Event().wait()


PART = Part("abcd", IPv4Network("10.213.0.0/16"), (0,))


async def _at_once() -> None:
    return None


def _raising(failure: Exception) -> Callable[[], Awaitable[None]]:
    async def take_over() -> None:
        raise failure

    return take_over


def _waiting_for(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def take_over() -> None:
        await event.wait()

    return take_over


@dataclass
class Fence:
    is_closed: bool = False
    thaws: int = 0

    def lift(self) -> None:
        self.is_closed, self.thaws = False, self.thaws + 1


@dataclass(eq=False)
class Box:
    """A fake sandbox with the parts that adopting uses."""

    record: Record
    take_over: Callable[[], Awaitable[None]] = _at_once
    killed: bool = False
    has_counted_spare: bool = True
    spares: int = 0  # processes that it was told to park with their memory counted
    fence: "Fence" = field(default_factory=lambda: Fence())
    is_given_up: bool = False
    thawed: int = 0  # times
    freezes: Callable[[], Awaitable[None]] = _at_once
    kills: int = 0  # times
    network: Network = DEFAULT_NETWORK
    takes_rules: bool = True

    async def freeze(self) -> bool:
        await self.freezes()
        return True

    async def recall(self) -> None:
        return None

    async def quiesce(self) -> bool:
        await self.take_over()
        return True

    def live(self, kind: str) -> int:
        return 7

    async def restrict(self, network: Network) -> None:
        if not self.takes_rules:
            raise SandboxGone("it was given up")
        self.network = network

    @property
    def id(self) -> str:
        return self.record.sandbox

    def let_go(self) -> None:
        self.thawed += 1

    def was_fenced(self, thaws: int) -> bool:
        return self.fence.is_closed or self.fence.thaws != thaws

    def give_up(self, *, frozen: bool = False) -> bool:
        self.is_given_up = not self.killed
        return self.is_given_up

    async def check(self) -> None:
        await self.take_over()

    async def thaw(self) -> None:
        self.spares += 1

    async def park(self) -> None:
        await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if not self.killed and not self.is_given_up:
            self.killed, self.kills = True, self.kills + 1

    def is_alive(self) -> bool:
        return not self.killed


@dataclass
class Host:
    """A host with the sandboxes that a killed server left."""

    home: Path
    ways: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    pool_size: int = 0
    boxes: dict[str, Box] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    fence: Fence = field(default_factory=Fence)
    failing: Exception | None = None  # of a stop
    without_init: Collection[str] = ()
    freezes: Callable[[], Awaitable[None]] = _at_once
    without_rules: Collection[str] = ()

    def sandboxes(self, tasks: Tasks) -> LocalSandboxes:
        settings: Any = SimpleNamespace(
            data_dir=self.home,
            image=SimpleNamespace(id="img"),
            images=self.home,
            parked_limits=LIMITS,
            pool_size=self.pool_size,
            pool_prepared=0,
        )
        parents = SimpleNamespace(own={}, keep=lambda marks: 0)
        volumes = SimpleNamespace(all=set, parents=parents)
        machinery: Any = SimpleNamespace(tasks=tasks, volumes=volumes, thaws=lambda: self.fence.thaws, rush=Rush())
        machinery.cgroups = SimpleNamespace(sandboxes=set)
        machinery.made, machinery.packed = None, SimpleNamespace(keep=lambda layers: None)
        runtime: Any = SimpleNamespace(known=list)
        (self.home / "run").mkdir()
        sandboxes = LocalSandboxes(settings, PART, runtime, machinery)
        containers: Any = sandboxes._containers
        containers.runs = lambda sandbox_id: True
        containers.left = self._left

        containers.limit = lambda record, limits: None

        async def remove(sandbox_id: str) -> None:
            self.removed.append(sandbox_id)

        async def stop(session: Session) -> None:
            self.removed.append(session.sandbox)
            if self.failing is not None:
                raise self.failing

        sandboxes._removed = sandboxes._discard = remove  # type: ignore[method-assign]
        sandboxes.stop = stop  # type: ignore[method-assign]
        return sandboxes

    def leave(self, sandbox_id: str, session_id: str | None, generation: int = records.GENERATION) -> None:
        directory = self.home / "sandboxes" / sandbox_id
        directory.mkdir(parents=True)
        records.write(directory, Record(sandbox_id, len(sandbox_id), "img", "secret", session_id, generation))

    def _left(self, record: Record) -> Box | None:
        if record.sandbox in self.without_init:
            return None
        box = Box(record, self.ways.get(record.sandbox, _at_once), fence=self.fence, freezes=self.freezes)
        box.takes_rules = record.sandbox not in self.without_rules
        self.boxes[record.sandbox] = box
        return box


def _session(sandbox_id: str) -> Session:
    session: Any = SimpleNamespace(
        id=f"ses_{sandbox_id}",
        sandbox=sandbox_id,
        volume=sandbox_id,
        state=State.ACTIVE,
        limits=LIMITS,
        network=DEFAULT_NETWORK,
    )
    return session  # type: ignore[no-any-return]


def _owned(host: Host, *sandbox_ids: str) -> dict[str, Session]:
    for sandbox_id in sandbox_ids:
        host.leave(sandbox_id, f"ses_{sandbox_id}")
    return {sandbox_id: _session(sandbox_id) for sandbox_id in sandbox_ids}


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as tasks:
        yield tasks


@dataclass
class Lost:
    """The sessions whose sandbox is gone, as the lifecycle is told."""

    ids: list[str] = field(default_factory=list)

    async def note(self, session_id: str) -> None:
        self.ids.append(session_id)


@pytest.mark.parametrize(
    "failure", [SandboxGone("x"), TimeoutError(), FileNotFound("x"), ZeroDivisionError(), OSError(5, "x")]
)
async def test_a_sandbox_that_fails_in_any_way_is_killed_and_the_others_are_adopted(
    tmp_path: Path, failure: Exception
) -> None:
    host, lost = Host(tmp_path, {"bad": _raising(failure)}), Lost()
    owned = _owned(host, "bad", *"abcdefgh")
    async with Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        with capture_logs() as logs:
            await sandboxes.recover(owned)
            sandboxes.on_lost(lost.note)
            await sandboxes.adopt()
    assert host.boxes["bad"].killed
    assert host.removed == ["bad"]
    assert lost.ids == ["ses_bad"]
    assert await sandboxes.get("bad") is None
    assert [name for name in owned if await sandboxes.get(name)] == list("abcdefgh")
    assert [entry["sandbox"] for entry in logs if entry["event"] == "sandbox_not_adopted"] == ["bad"]


async def test_a_sandbox_whose_first_process_has_ended_is_removed(tmp_path: Path) -> None:
    host, lost = Host(tmp_path, without_init=["bad", "doomed"]), Lost()
    owned = _owned(host, "bad", "doomed", "good")
    async with Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        await sandboxes.recover(owned)
        sandboxes.on_lost(lost.note)
        await sandboxes.kill("doomed")
        await sandboxes.adopt()
    assert host.removed == ["bad"]
    assert lost.ids == ["ses_bad"]
    assert [name for name in owned if await sandboxes.get(name)] == ["good"]


async def test_a_host_without_open_files_adopts_its_sandboxes_later(
    tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, tries = Host(tmp_path), list[str]()
    sandboxes = host.sandboxes(tasks)
    containers: Any = sandboxes._containers
    left = containers.left

    def refused(record: Record) -> Box | None:
        tries.append(record.sandbox)
        if len(tries) == 1:
            raise OSError(24, "Too many open files")
        box: Box | None = left(record)
        return box

    containers.left = refused
    monkeypatch.setattr(adopting, "AGAIN_SECONDS", 0.01)
    await sandboxes.recover(_owned(host, "a"))
    await sandboxes.adopt()
    assert tries == ["a", "a"]
    assert await sandboxes.get("a") is not None
    assert host.removed == []


async def test_a_start_waits_for_no_sandbox(tmp_path: Path, tasks: Tasks) -> None:
    host = Host(tmp_path, {"a": _never})
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a", "b"))
    assert host.boxes == {}
    assert [sandboxes.is_running(name) for name in "abx"] == [True, True, False]
    assert len(sandboxes._adoption) == 2


async def test_a_sandbox_that_a_request_finds_dead_is_told_before_the_others_are_adopted(tmp_path: Path) -> None:
    host, lost = Host(tmp_path, {"a": _raising(SandboxGone("x"))}), Lost()
    async with Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        await sandboxes.recover(_owned(host, "a", "b"))
        sandboxes.on_lost(lost.note)
        assert await sandboxes.get("a") is None
    assert lost.ids == ["ses_a"]
    assert len(sandboxes._adoption) == 1


async def test_a_request_for_a_sandbox_need_not_wait_for_the_others(tmp_path: Path, tasks: Tasks) -> None:
    slow = asyncio.Event()
    host = Host(tmp_path, dict.fromkeys([f"s{n}" for n in range(20)], _waiting_for(slow)))
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, *host.ways, "z"))
    rest = asyncio.create_task(sandboxes.adopt())
    await asyncio.sleep(0)
    first, second = await asyncio.gather(sandboxes.get("z"), sandboxes.get("z"))
    box: Any = host.boxes["z"]
    assert first is second is box
    slow.set()
    await rest
    assert all([await sandboxes.get(name) for name in host.ways])


async def test_a_caller_that_leaves_does_not_end_the_adoption(tmp_path: Path, tasks: Tasks) -> None:
    answers = asyncio.Event()
    host = Host(tmp_path, {"a": _waiting_for(answers)})
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    asking = asyncio.create_task(sandboxes.get("a"))
    await eventually(lambda: host.boxes)
    await cancel_and_wait(asking)
    answers.set()
    box: Any = host.boxes["a"]
    assert await sandboxes.get("a") is box


@pytest.mark.parametrize("begun", [False, True])
async def test_a_sandbox_can_be_killed_before_it_is_adopted(tmp_path: Path, tasks: Tasks, *, begun: bool) -> None:
    answers = asyncio.Event()
    host, lost = Host(tmp_path, {"a": _waiting_for(answers)}), Lost()
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    sandboxes.on_lost(lost.note)
    rest = asyncio.create_task(sandboxes.adopt() if begun else asyncio.sleep(0))
    await asyncio.sleep(0.01)
    killing = asyncio.create_task(sandboxes.kill("a"))
    await asyncio.sleep(0.01)
    answers.set()
    await asyncio.gather(killing, rest)
    assert host.boxes["a"].killed
    assert not sandboxes.is_running("a")
    assert await sandboxes.get("a") is None
    assert lost.ids == []


@pytest.mark.parametrize("phase", ["store", "guest", "parked guest", "earlier version", "limits", "parked", "freeze"])
async def test_a_kill_waits_for_nothing_that_an_adoption_waits_for(tmp_path: Path, tasks: Tasks, phase: str) -> None:
    reached, goes_on = threading.Event(), threading.Event()

    async def hangs() -> None:
        reached.set()
        await asyncio.Event().wait()

    host, lost = Host(tmp_path, pool_size=1), Lost()
    is_parked = phase.startswith("parked")
    host.leave("a", None if is_parked else "ses_a", records.GENERATION - (phase == "earlier version"))
    owned = {} if is_parked else {"a": _session("a")}
    if phase in ("guest", "parked guest", "earlier version"):
        host.ways = {"a": hangs}
    if phase == "freeze":
        owned["a"].state = State.IDLE  # type: ignore[misc]
    sandboxes = host.sandboxes(tasks)
    containers: Any = sandboxes._containers

    def limit(record: Record, limits: Limits) -> None:
        reached.set()
        assert goes_on.wait(5)

    async def current(session_id: str) -> Session | None:
        await hangs()
        return None

    async def freezes() -> None:
        reached.set()
        await eventually(lambda: host.boxes["a"].killed)

    if phase in ("limits", "parked"):
        containers.limit = limit
    if phase == "store":
        sandboxes.look_before_adopting(current)
    host.freezes = freezes
    await sandboxes.recover(owned)
    sandboxes.on_lost(lost.note)
    adopting = asyncio.create_task(sandboxes.adopt())
    await eventually(reached.is_set)
    async with asyncio.timeout(5):
        killing = [asyncio.create_task(sandboxes.kill("a")) for _ in range(2)]
        await eventually(lambda: host.boxes and host.boxes["a"].killed)
        goes_on.set()
        await asyncio.gather(*killing)
        await adopting
    assert host.boxes["a"].kills == 1
    assert not sandboxes.is_running("a")
    assert await sandboxes.get("a") is None
    assert (len(sandboxes._adoption), len(sandboxes._pool), sandboxes._running) == (0, 0, {})
    assert host.removed == (["a"] if is_parked else [])  # who kills a session's removes it
    assert lost.ids == []


async def test_a_sandbox_that_is_killed_while_the_server_stops_is_killed(tmp_path: Path) -> None:
    host = Host(tmp_path, {"a": _never})
    async with asyncio.timeout(5), Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        machinery: Any = sandboxes._machinery
        machinery.quotas = SimpleNamespace(close=lambda: None)
        await sandboxes.recover(_owned(host, "a"))
        adopting = asyncio.create_task(sandboxes.adopt())
        await eventually(lambda: host.boxes)
        given_up = host.boxes["a"]
        await sandboxes.close()
        await sandboxes.kill("a")
        await adopting
    assert given_up.is_given_up
    assert not given_up.killed
    assert host.boxes["a"].killed, "it is looked up again"


async def test_what_a_sandbox_that_is_not_adopted_has_running_is_known_without_its_guest(
    tmp_path: Path, tasks: Tasks
) -> None:
    answers = asyncio.Event()
    host = Host(tmp_path, {"a": _waiting_for(answers)})
    sandboxes = host.sandboxes(tasks)
    machinery: Any = sandboxes._machinery
    machinery.cgroups.run_processes = lambda sandbox, run: [] if run == "r9" else [4]
    await sandboxes.recover(_owned(host, "a", "b"))
    markers = {"r1": "processes", "r2": "processes", "r3": "contexts ctx_a", "r4": "", "r9": "processes"}
    directory = tmp_path / "sandboxes" / "a" / "runs"
    directory.mkdir()
    for name, text in markers.items():
        (directory / name).write_text(text)
    adopting = asyncio.create_task(sandboxes.get("a"))
    await eventually(lambda: host.boxes)
    live = await sandboxes.live(["a", "b", "c"])
    assert [live("a", "processes"), live("a", "contexts"), live("a", "terminals")] == [2, 1, 0]
    assert [live("b", "processes"), live("c", "processes")] == [0, 0]
    assert list(host.boxes) == ["a"], "it adopted none"
    answers.set()
    await adopting
    assert live("a", "processes") == 7, "now the kernel's count"


async def test_network_rules_of_a_sandbox_that_is_not_adopted_take_effect_without_its_guest(
    tmp_path: Path, tasks: Tasks
) -> None:
    host, none = Host(tmp_path, {"begun": _never, "waits": _never, "gone": _never}), Network(egress="none")
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, *host.ways))
    adopting = asyncio.create_task(sandboxes.get("begun"))
    await eventually(lambda: host.boxes)
    async with asyncio.timeout(5):
        for name in ("begun", "waits", "unknown"):
            await sandboxes.restrict(name, none)
        assert {name: box.network for name, box in host.boxes.items()} == {"begun": none, "waits": none}
        host.without_rules = {"gone"}
        with pytest.raises(Unavailable):
            await sandboxes.restrict("gone", none)
        for name in host.ways:
            await sandboxes.kill(name)
        assert await adopting is None


async def test_what_uses_the_volume_of_a_session_that_is_asleep_is_stopped_before_the_start_ends(
    tmp_path: Path, tasks: Tasks
) -> None:
    host = Host(tmp_path)
    owned = _owned(host, "a", "b")
    owned["a"].state = State.DEEP_SLEEP  # type: ignore[misc]
    host.leave("unknown", "ses_b")
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(owned)
    assert sorted(host.removed) == ["a", "unknown"]
    assert [sandboxes.is_running(name) for name in ("a", "b", "unknown")] == [False, True, False]


async def test_sandboxes_that_do_not_answer_delay_the_others_together_not_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", READY)
    monkeypatch.setattr(adopting, "TURN_SECONDS", READY / 100)
    stopped = [f"s{n}" for n in range(100)]
    host, lost = Host(tmp_path, dict.fromkeys(stopped, _never)), Lost()
    owned = _owned(host, *stopped, "z")
    async with Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        await sandboxes.recover(owned)
        started = time.monotonic()
        sandboxes.on_lost(lost.note)
        await sandboxes.adopt()
        assert time.monotonic() - started < 4 * READY
        assert all(host.boxes[name].killed for name in stopped)
        assert await sandboxes.get("z") is not None
    assert len(lost.ids) == 100


async def test_a_slow_sandbox_gets_as_long_as_a_starting_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", 20 * READY)
    monkeypatch.setattr(adopting, "TURN_SECONDS", READY / 100)
    names = [f"s{n}" for n in range(50)]
    host = Host(tmp_path, dict.fromkeys(names, lambda: asyncio.sleep(READY)))
    owned, sandboxes = _owned(host, *names), host.sandboxes(tasks)
    await sandboxes.recover(owned)
    await sandboxes.adopt()
    assert [name for name in names if not await sandboxes.get(name)] == []


async def test_adoption_prepares_no_process_for_a_run(tmp_path: Path, tasks: Tasks) -> None:
    """Not in a sandbox that is frozen again, and none whose memory is counted in a parked one."""
    host = Host(tmp_path, pool_size=1)
    owned = _owned(host, "active", "idle")
    owned["idle"].state = State.IDLE  # type: ignore[misc]
    host.leave("parked", None)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(owned)
    await sandboxes.adopt()
    assert {name: (box.killed, box.spares) for name, box in host.boxes.items()} == dict.fromkeys(
        ("active", "idle", "parked"), (False, 0)
    )


async def test_no_more_are_parked_than_the_pool_holds(tmp_path: Path, tasks: Tasks) -> None:
    host = Host(tmp_path, pool_size=3)
    for number in range(40):
        host.leave(f"p{number}", None)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover({})
    await sandboxes.adopt()
    assert len(sandboxes._pool) == 3
    assert len(host.removed) == 37
    assert {name for name, box in host.boxes.items() if box.killed} == set(host.removed)


# --- a host of a fleet ---


def _in_seconds(monkeypatch: pytest.MonkeyPatch, ready: float = READY) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", ready)
    monkeypatch.setattr(adopting, "AGAIN_SECONDS", ready / 10)
    monkeypatch.setattr(adopting, "TURN_SECONDS", ready / 10)


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("failure", [None, SandboxGone("x")])
async def test_a_sandbox_that_was_fenced_while_it_was_adopted_is_adopted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks, failure: Exception | None, *, lifted: bool
) -> None:
    """Also if the fence was lifted just before its time was over."""
    _in_seconds(monkeypatch)
    host, lost, answers = Host(tmp_path, pool_size=1), Lost(), asyncio.Event()

    async def take_over() -> None:
        if not answers.is_set():
            host.fence.is_closed = True
            if lifted:
                host.fence.lift()
            if failure is not None:
                raise failure
            await asyncio.Event().wait()

    host.ways = {"a": take_over, "parked": take_over}
    host.leave("parked", None)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    sandboxes.on_lost(lost.note)
    rest = asyncio.create_task(sandboxes.adopt())
    with pytest.raises(Unavailable):
        await sandboxes.get("a")
    assert host.boxes["a"].is_given_up
    assert sandboxes.is_running("a")
    answers.set()
    host.fence.lift()
    await rest
    assert await sandboxes.get("a") is not None
    assert len(sandboxes._pool) == 1
    assert (host.removed, lost.ids, len(sandboxes._adoption)) == ([], [], 0)


async def test_a_sandbox_that_the_fence_froze_is_not_replaced_for_its_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    _in_seconds(monkeypatch)
    host = Host(tmp_path)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    await sandboxes.adopt()
    host.boxes["a"].take_over = _never
    host.fence.is_closed = True
    with pytest.raises(Unavailable):
        await sandboxes.start(_session("a"))
    assert host.removed == []
    host.fence.lift()
    host.boxes["a"].take_over = _at_once
    assert await sandboxes.start(_session("a")) is await sandboxes.get("a")


@pytest.mark.parametrize("now", [None, "another volume"])
async def test_a_sandbox_whose_session_moved_before_its_turn_is_neither_thawed_nor_adopted(
    tmp_path: Path, tasks: Tasks, now: str | None
) -> None:
    host = Host(tmp_path)
    owned = _owned(host, "here", "moved")
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(owned)

    async def current(session_id: str) -> Session | None:
        here = owned["here"]
        if session_id == here.id:
            return here
        moved = _session("moved")
        moved.volume = now  # type: ignore[misc, assignment]
        return moved if now else None

    sandboxes.look_before_adopting(current)
    await sandboxes.adopt()
    assert list(host.boxes) == ["here"]
    with pytest.raises(Unavailable):
        await sandboxes.get("moved")
    await sandboxes.kill("moved")  # as what gives up the session does
    assert host.boxes["moved"].killed
    assert host.boxes["moved"].thawed == 0
    assert await sandboxes.get("moved") is None


async def test_a_sandbox_is_adopted_when_the_host_may_act_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    _in_seconds(monkeypatch)
    host, asked = Host(tmp_path), list[str]()
    owned = _owned(host, "a")
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(owned)

    async def current(session_id: str) -> Session | None:
        asked.append(session_id)
        if len(asked) < 3:
            raise Unavailable("away")
        return owned["a"]

    sandboxes.look_before_adopting(current)
    await sandboxes.adopt()
    assert len(asked) == 3
    assert await sandboxes.get("a") is not None


async def test_rules_that_were_stored_since_the_start_are_in_force_before_a_sandbox_thaws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    _in_seconds(monkeypatch)
    host, seen = Host(tmp_path), list[tuple[str, Network, bool]]()
    owned = _owned(host, "a", "same")
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(owned)
    containers: Any = sandboxes._containers

    def restrict(record: Record, network: Network) -> None:
        seen.append((record.sandbox, network, record.sandbox in host.boxes))
        if len(seen) == 1:
            raise HostCommandFailed("nft: timed out")

    async def current(session_id: str) -> Session | None:
        session = _session(session_id.removeprefix("ses_"))
        if session.sandbox == "a":
            session.network = Network(egress="none")  # type: ignore[misc]
        return session

    containers.restrict = restrict
    sandboxes.look_before_adopting(current)
    await sandboxes.adopt()
    assert seen == [("a", Network(egress="none"), False)] * 2
    assert all([await sandboxes.get(name) for name in owned])


async def test_a_sandbox_that_is_being_adopted_has_counters_and_traffic(tmp_path: Path, tasks: Tasks) -> None:
    answers = asyncio.Event()
    host = Host(tmp_path, {"a": _waiting_for(answers)})
    sandboxes = host.sandboxes(tasks)
    owned = _owned(host, "a")
    machinery: Any = sandboxes._machinery
    machinery.network = SimpleNamespace(touched=lambda: {1})
    await sandboxes.recover(owned)
    asking = asyncio.create_task(sandboxes.get("a"))
    await eventually(lambda: host.boxes)
    assert sandboxes._metered(list(owned.values()))[0].interface is not None
    assert await sandboxes.touched() == ["ses_a"]
    assert sandboxes._awake() == [found.record.volume for found in sandboxes._adoption.found] != []
    answers.set()
    await asking


@pytest.mark.parametrize("failure", [OSError(5, "x"), Unavailable("x"), ZeroDivisionError()])
async def test_a_lost_sandbox_is_told_even_if_its_volume_cannot_be_synced(tmp_path: Path, failure: Exception) -> None:
    host, lost = Host(tmp_path, {"a": _raising(SandboxGone("x"))}, failing=failure), Lost()
    with capture_logs() as logs:
        async with Tasks() as tasks:
            sandboxes = host.sandboxes(tasks)
            await sandboxes.recover(_owned(host, "a"))
            sandboxes.on_lost(lost.note)
            await sandboxes.adopt()
    assert lost.ids == ["ses_a"]
    told = [entry["sandbox"] for entry in logs if entry["event"] == "sandbox_not_cleared"]
    assert told == ([] if isinstance(failure, Unavailable) else ["a"])  # that one was told before


async def test_a_silent_parked_sandbox_holds_up_neither_the_pool_nor_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    monkeypatch.setattr(adopting, "TURN_SECONDS", 0.05)
    answers = asyncio.Event()
    host = Host(tmp_path, {"silent": _waiting_for(answers)}, pool_size=1)
    host.leave("silent", None)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    rest = asyncio.create_task(sandboxes.adopt())
    async with asyncio.timeout(5):
        await sandboxes._adoption.parked.wait()
        await eventually(lambda: "a" in sandboxes._running)
    assert not rest.done()
    answers.set()
    await rest
    assert len(sandboxes._pool) == 1


async def _fails_when_it_is_cut() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError(5, "x")


@pytest.mark.parametrize("way", [_never, _fails_when_it_is_cut])
async def test_a_server_that_stops_waits_for_no_guest_and_leaves_its_sandbox_running(
    tmp_path: Path, way: Callable[[], Awaitable[None]]
) -> None:
    host, lost = Host(tmp_path, {"a": way, "parked": way}, pool_size=1), Lost()
    host.leave("parked", None)
    async with asyncio.timeout(5):
        async with Tasks() as tasks:
            sandboxes = host.sandboxes(tasks)
            await sandboxes.recover(_owned(host, "a", "b"))
            sandboxes.on_lost(lost.note)
            asking = asyncio.create_task(sandboxes.get("a"))
            tasks.start(sandboxes.adopt(), "adoption")
            await eventually(lambda: {"a", "parked"} <= host.boxes.keys())
            sandboxes._adoption.close()
            with pytest.raises(Unavailable):
                await asking
            with pytest.raises(Unavailable):
                await sandboxes.get("a")
    assert [(box.killed, box.is_given_up) for box in (host.boxes["a"], host.boxes["parked"])] == [(False, True)] * 2
    assert (host.removed, lost.ids) == ([], [])


async def test_a_server_that_stops_begins_no_adoption(tmp_path: Path, tasks: Tasks) -> None:
    host = Host(tmp_path)
    sandboxes = host.sandboxes(tasks)
    await sandboxes.recover(_owned(host, "a"))
    sandboxes._adoption.close()
    with pytest.raises(Unavailable):
        await sandboxes.get("a")
    await sandboxes.adopt()
    assert host.boxes == {}
