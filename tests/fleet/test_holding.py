"""What a server does with its lease: when it opens its host, and when it silences it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from buntime.errors import Unavailable
from buntime.fleet import holding, lease
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.budget import Budget
from buntime.fleet.guard import Guard
from buntime.fleet.holding import Holding
from buntime.fleet.lease_file import LeaseFile, Watched
from buntime.fleet.members import Description, Fenced, HostState, Members, Membership, OutOfDate
from buntime.testing import members as fake
from buntime.testing.members import FakeMembers
from tests.waiting import eventually

QUICK = Budget(renew=0.05, lease=2.0, fence=1.0, edge=0.25, freeze=0.25)
HERE, ELSEWHERE = Description("10.0.0.1:7000", "1"), Description("10.0.0.2:7000", "1")


class Watching(Guard):
    """A guard whose watchdog watches as soon as it may."""

    def __init__(self, file: LeaseFile) -> None:
        super().__init__((), file)
        self.may_watch, self.fenced = True, 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    def watches(self, incarnation: int) -> bool:
        return self.may_watch

    def has_fenced(self, incarnation: int) -> bool:
        return incarnation <= self.fenced


class Scene:
    """`done`: what the host did, in order."""

    def __init__(self, path: Path) -> None:
        self.done: list[str] = []
        self.file = LeaseFile(path)
        self.guard = Watching(self.file)
        self.database = FakeMembers(boot_seconds)
        self.failures: list[Exception] = []  # of the next comparisons

    # `fence.Fence`
    def prepare(self) -> None:
        self.done.append("prepare")

    def close(self) -> None:
        self.done.append("close")

    def thaw(self) -> None:
        self.done.append("thaw")

    def extend(self, seconds: float) -> None:
        if self.done[-1] != "extend":
            self.done.append("extend")

    def remove(self) -> None: ...

    async def compare(self, me: Membership) -> None:
        self.done.append(f"compare {me.incarnation}")
        if self.failures:
            raise self.failures.pop()

    @asynccontextmanager
    async def running(self, members: Members | None = None) -> AsyncIterator[Holding]:
        parts = (self.guard, self.file, self, self.compare)
        held = Holding(members or self.database, "a", HERE, *parts, lambda: {})
        task = asyncio.create_task(held.run())
        yield held
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for module in (holding, lease, fake):
        monkeypatch.setattr(module, "BUDGET", QUICK)
    return Scene(tmp_path / "lease")


async def test_a_host_is_opened_when_it_has_compared_and_is_watched(scene: Scene) -> None:
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        assert held.membership == Membership("a", 1)
        await eventually(lambda: scene.done[-1] == "extend", "the host to be open")
    assert scene.done == ["prepare", "compare 1", "thaw", "extend"]
    assert not held.may_act()
    with pytest.raises(Fenced):
        _ = held.membership


async def test_nothing_is_opened_that_nobody_watches(scene: Scene) -> None:
    scene.guard.may_watch = False
    async with scene.running() as held:
        await eventually(lambda: "compare 1" in scene.done, "a comparison")
        await asyncio.sleep(QUICK.fence)
        assert not held.may_act()
        assert "thaw" not in scene.done
        scene.guard.may_watch = True
        await eventually(held.may_act, "the host to act")


async def test_a_host_whose_watchdog_ends_fences_itself(scene: Scene) -> None:
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        scene.guard.may_watch = False
        await eventually(lambda: "close" in scene.done, "the fence")
        assert not held.may_act()


async def test_a_host_that_its_watchdog_has_fenced_joins_anew(scene: Scene) -> None:
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        scene.guard.fenced = 1
        await eventually(lambda: scene.done[-1] == "extend" and "compare 2" in scene.done, "the host to be open again")
    assert scene.done == ["prepare", "compare 1", "thaw", "extend", "close", "compare 2", "thaw", "extend"]


async def test_renewals_and_fences_are_counted(scene: Scene) -> None:
    async with scene.running() as held:
        assert (held.seconds_left, held.renewals, held.fences) == (0, 0, 0)
        await eventually(lambda: held.renewals >= 2, "two renewals")
        assert held.fences == 0
        await eventually(lambda: held.seconds_left > 0, "a lease")
        assert held.seconds_left <= QUICK.fence
        scene.guard.fenced = 1
        await eventually(lambda: held.fences == 1, "the fence")


async def test_a_host_that_is_refused_joins_anew(scene: Scene) -> None:
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        await scene.database.join("a", HERE)
        await eventually(lambda: scene.done[-1] == "extend" and "compare 3" in scene.done, "the host to be open again")
    assert scene.done == ["prepare", "compare 1", "thaw", "extend", "close", "compare 3", "thaw", "extend"]


async def test_a_comparison_that_cannot_be_made_now_is_made_again(scene: Scene) -> None:
    scene.failures = [Unavailable("Not now."), Unavailable("Not now.")]
    async with scene.running() as held:
        await eventually(lambda: held.may_act() and "thaw" in scene.done, "the host to act")
    assert scene.done[:5] == ["prepare", *["compare 1"] * 3, "thaw"]


async def test_a_host_whose_database_never_answers_fences_itself_in_time(scene: Scene) -> None:
    members = Silent(scene.database)
    async with scene.running(members) as held:
        await eventually(held.may_act, "the host to act")
        members.is_silent = True
        await eventually(lambda: "close" in scene.done, "the fence")
        assert not held.may_act()
        members.is_silent = False
        await eventually(held.may_act, "the host to act again")
    assert "compare 2" in scene.done


async def test_a_copy_of_a_host_never_acts(scene: Scene) -> None:
    me = await scene.database.join("a", ELSEWHERE)
    async with scene.running() as held:
        for _ in range(10):
            await scene.database.renew(me, {})
            await asyncio.sleep(QUICK.renew)
        assert not held.may_act()
    assert scene.done == ["prepare"]


async def test_a_host_that_is_too_old_for_the_database_stays_silent(scene: Scene) -> None:
    members = Changed(boot_seconds)
    async with scene.running(members) as held:
        await eventually(held.may_act, "the host to act")
        members.is_newer = True
        await members.give_up("a")
        await eventually(lambda: members.refused > 2, "joins")
        assert not held.may_act()
    assert scene.done[-1] == "close"


async def test_a_host_asks_for_an_incarnation_after_all_that_it_knows(scene: Scene) -> None:
    scene.file.watch(Watched(0, 57, 1, 0.0))
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        assert held.membership.incarnation == 58


async def test_a_host_learns_that_it_is_drained(scene: Scene) -> None:
    async with scene.running() as held:
        await eventually(held.may_act, "the host to act")
        await scene.database.mark("a", HostState.DRAINING)
        await eventually(lambda: held.state is HostState.DRAINING, "the mark")


class Changed(FakeMembers):
    """A database that a newer version changes."""

    is_newer, refused = False, 0

    async def join(self, host: str, description: Description, after: int = 0) -> Membership:
        if self.is_newer:
            self.refused += 1
            raise OutOfDate
        return await super().join(host, description, after)

    async def give_up(self, host: str) -> None:
        """Ends the lease."""
        (row,) = [each for each in await self.list() if each.id == host]
        await self.leave(Membership(host, row.incarnation))


class Silent(FakeMembers):
    """Never answers while it is silent."""

    def __init__(self, database: FakeMembers) -> None:
        super().__init__(boot_seconds)
        self._rows = database._rows
        self.is_silent = False

    async def join(self, host: str, description: Description, after: int = 0) -> Membership:
        return await self._answer(lambda: FakeMembers.join(self, host, description, after))

    async def renew(self, me: Membership, capacity: Mapping[str, object]) -> HostState:
        return await self._answer(lambda: FakeMembers.renew(self, me, capacity))

    async def _answer[T](self, work: Callable[[], Awaitable[T]]) -> T:
        if self.is_silent:
            await asyncio.Event().wait()
        return await work()
