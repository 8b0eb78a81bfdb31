"""The contract of `ports.Sandboxes.on_exited`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from buntime.ids import new_process_id
from buntime.inside import Ended, NewProcess, NewService
from buntime.ports import Exits, Sandbox
from buntime.sandboxes import record as records
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import Session, State
from buntime.testing.sandboxes import FakeSandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, SESSION, FakeHost, Host, LocalHost, _session
from tests.waiting import eventually

LOCAL = pytest.mark.parametrize("heard", [pytest.param("local", marks=REAL)], indirect=True)


class Heard:
    """A host whose ends are heard."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.exits: list[Exits] = []
        self.stores = True

    async def _hear(self, exits: Exits) -> None:
        self.exits.append(exits)
        if self.stores:
            exits.stored()

    @property
    def ended(self) -> Sequence[Ended]:
        return sorted((ended for exits in self.exits for ended in exits.ended), key=lambda ended: ended.id)

    async def reopen(self, *owned: Session) -> None:
        """As a server does after a kill and a restart."""
        await self.host.reopen({session.sandbox: session for session in owned})
        self.host.sandboxes.on_exited(self._hear)

    async def claim(self) -> tuple[Session, Sandbox]:
        claimed = await self.host.sandboxes.claim(SESSION.id, LIMITS)
        return _session(claimed), claimed.sandbox


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def heard(request: pytest.FixtureRequest) -> AsyncIterator[Heard]:
    heard = Heard(FakeHost() if request.param == "fake" else LocalHost())
    try:
        await heard.reopen()
        yield heard
    finally:
        await heard.host.close()


def new(command: str, number: int = 1, name: str | None = None) -> NewProcess:
    return NewProcess(new_process_id(number), command=command, name=name)


def service(command: str, number: int = 1) -> NewService:
    return NewService(new_process_id(number), "web", "ab", command, "never", {}, "/workspace", 1 << 20, 1 << 22)


async def test_processes_that_end_by_themselves_or_by_a_signal_are_told(heard: Heard) -> None:
    _, sandbox = await heard.claim()
    own, killed = new("exit 7", 1, "own"), new("sleep 1000", 2)
    await sandbox.processes.start(killed)
    await sandbox.processes.start(own)
    await eventually(lambda: len(heard.ended) == 1)
    await sandbox.processes.signal(killed.id, 9)
    await eventually(lambda: len(heard.ended) == 2)
    assert heard.ended == [Ended(own.id, "own", 7, None), Ended(killed.id, None, 137, None)]
    assert {exits.session for exits in heard.exits} == {SESSION.id}


async def test_each_of_many_that_end_together_is_told_once(heard: Heard) -> None:
    _, sandbox = await heard.claim()
    started = [new("cat", number) for number in range(20)]
    for one in started:
        await sandbox.processes.start(one)
    await asyncio.gather(*(sandbox.processes.input(one.id, b"", close=True) for one in started))
    await eventually(lambda: len(heard.ended) >= len(started))
    assert [ended.id for ended in heard.ended] == [one.id for one in started]


async def test_the_end_of_a_service_that_is_not_started_again_is_told(heard: Heard) -> None:
    _, sandbox = await heard.claim()
    started = service("sleep 1000")
    await sandbox.services.start(started)
    await sandbox.services.stop("web")
    await eventually(lambda: len(heard.ended) == 1)
    assert heard.ended == [Ended(started.id, "web", 143, None)]


async def test_processes_that_deep_sleep_ends_are_not_told(heard: Heard) -> None:
    session, sandbox = await heard.claim()
    await sandbox.processes.start(new("sleep 1000"))
    assert await sandbox.quiesce()
    await heard.host.sandboxes.stop(session)
    await asyncio.sleep(0.1)
    assert heard.ended == []


async def test_a_process_that_ended_just_before_deep_sleep_is_told(heard: Heard) -> None:
    session, sandbox = await heard.claim()
    one = new("exit 3")
    await sandbox.processes.start(one)
    await eventually_ended(sandbox, one.id)
    assert await sandbox.quiesce()
    await heard.host.sandboxes.stop(session)
    await eventually(lambda: heard.ended == [Ended(one.id, None, 3, None)])


async def test_ends_are_told_after_a_suspension(heard: Heard) -> None:
    _, sandbox = await heard.claim()
    one = new("cat")
    await sandbox.processes.start(one)
    assert await sandbox.freeze()
    await sandbox.thaw()
    await sandbox.processes.input(one.id, b"", close=True)
    await eventually(lambda: heard.ended == [Ended(one.id, None, 0, None)])


async def test_ends_are_told_after_a_restart_of_the_server(heard: Heard) -> None:
    session, sandbox = await heard.claim()
    away, later = new("read x; exit 4", 1, "away"), new("cat", 2)
    for one in (away, later):
        await sandbox.processes.start(one)
    heard.stores = False
    await sandbox.processes.input(away.id, b"x\n", close=False)
    if isinstance(sandbox, FakeSandbox):
        sandbox.processes.all[away.id].ends(4)
    await eventually(lambda: len(heard.exits) == 1)
    heard.stores = True
    await heard.reopen(replace(session, state=State.ACTIVE))
    again = await heard.host.sandboxes.get(session.sandbox)
    assert again is not None
    await again.processes.input(later.id, b"", close=True)
    times = 1 if isinstance(heard.host, FakeHost) else 2  # a fake keeps nothing that was not stored
    await eventually(lambda: len(heard.ended) == times + 1)  # what was not stored is told again
    assert heard.ended == [*[Ended(away.id, "away", 4, None)] * times, Ended(later.id, None, 0, None)]
    assert [exits.again for exits in heard.exits[1:]] == [times == 2] * times
    await heard.reopen(replace(session, state=State.ACTIVE))
    assert await heard.host.sandboxes.get(session.sandbox) is not None
    await asyncio.sleep(0.1)
    assert len(heard.ended) == times + 1


@LOCAL
async def test_ends_are_told_when_a_later_version_ends_the_sandbox(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, sandbox = await heard.claim()
    one, other = new("exit 3", 1), new("sleep 1000", 2)
    heard.stores = False
    for each in (one, other):
        await sandbox.processes.start(each)
    await eventually(lambda: len(heard.exits) == 1)
    heard.stores = True
    monkeypatch.setattr(records, "GENERATION", records.GENERATION + 1)
    await heard.reopen(replace(session, state=State.ACTIVE))
    assert await heard.host.sandboxes.get(session.sandbox) is None
    assert heard.ended == [Ended(one.id, None, 3, None)] * 2


@LOCAL
async def test_ends_are_told_after_a_freeze_that_failed(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sandbox = await heard.claim()
    assert isinstance(sandbox, LocalSandbox)
    one = new("cat")
    await sandbox.processes.start(one)

    async def fail() -> bool:
        sandbox._guest.close()
        await eventually(lambda: sandbox._ends._wanted is None, "the stream to end")
        return False

    monkeypatch.setattr(sandbox, "_freeze_all", fail)
    assert not await sandbox.freeze()
    await sandbox.processes.input(one.id, b"", close=True)
    await eventually(lambda: heard.ended == [Ended(one.id, None, 0, None)])


async def eventually_ended(sandbox: Sandbox, process_id: str) -> None:
    async with asyncio.timeout(20):
        while (await sandbox.processes.get(process_id)).status == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
