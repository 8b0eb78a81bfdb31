"""The fake and PostgreSQL agree on who is a member, and for how long."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from buntime.fleet.budget import BUDGET
from buntime.fleet.members import Description, Fenced, HostState, IdTaken, Member, Members
from buntime.fleet.postgres.members import PostgresMembers
from buntime.testing.members import FakeMembers
from tests.fleet.conftest import Pool

LEASE = BUDGET.lease
HOUR = 3600.0
FIRST = Description("10.0.0.1:7000", "1.0", {"sessions": 3})
SECOND = Description("10.0.0.2:7000", "1.1")


@dataclass
class Fleet:
    members: Members
    pass_time: Callable[[float], Awaitable[None]]  # on the database's clock; it may go back

    async def of(self, host: str) -> Member:
        return next(member for member in await self.members.list() if member.id == host)


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.postgres)])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "fake":
        now = [1000.0]

        async def pass_fake(seconds: float) -> None:
            now[0] += seconds

        return Fleet(FakeMembers(lambda: now[0]), pass_fake)
    pool: Pool = request.getfixturevalue("clocked")

    async def pass_time(seconds: float) -> None:
        async with pool.connection() as connection:
            await connection.execute("UPDATE clock SET at = at + make_interval(secs => %s)", (seconds,))

    return Fleet(PostgresMembers(pool), pass_time)


async def test_a_host_that_joins_is_listed_as_it_described_itself(fleet: Fleet) -> None:
    me = await fleet.members.join("b", FIRST)
    await fleet.members.join("a", SECOND)
    assert [member.id for member in await fleet.members.list()] == ["a", "b"]
    member = await fleet.of("b")
    since = member.joined_at
    assert member == Member("b", me.incarnation, 0, LEASE, False, HostState.ACTIVE, FIRST, since)


async def test_each_renewal_counts_and_begins_the_lease_anew(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    await fleet.pass_time(LEASE - 1)
    assert (await fleet.of("a")).lease_left == pytest.approx(1)
    assert await fleet.members.renew(me, {"sessions": 4}) is HostState.ACTIVE
    member = await fleet.of("a")
    assert member.renewals == 1
    assert member.lease_left == pytest.approx(LEASE)
    assert member.description.capacity == {"sessions": 4}


async def test_hosts_have_the_database_s_clock(fleet: Fleet) -> None:
    before = await fleet.members.now()
    await fleet.pass_time(100)
    assert await fleet.members.now() == pytest.approx(before + 100)


async def test_a_lease_that_is_over_is_never_renewed(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    await fleet.pass_time(LEASE)
    with pytest.raises(Fenced):
        await fleet.members.renew(me, {})
    assert (await fleet.of("a")).renewals == 0


async def test_an_earlier_incarnation_is_never_renewed(fleet: Fleet) -> None:
    before = await fleet.members.join("a", FIRST)
    now = await fleet.members.join("a", FIRST)
    assert now.incarnation > before.incarnation
    with pytest.raises(Fenced):
        await fleet.members.renew(before, {})
    await fleet.members.renew(now, {})


async def test_a_host_that_never_joined_is_not_renewed(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    for wrong in ("b", "A", ""):
        with pytest.raises(Fenced):
            await fleet.members.renew(type(me)(wrong, me.incarnation), {})


async def test_a_join_begins_to_count_anew(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    await fleet.members.renew(me, {})
    await fleet.members.join("a", FIRST)
    assert (await fleet.of("a")).renewals == 0


async def test_a_host_never_gets_an_incarnation_again_that_it_knows(fleet: Fleet) -> None:
    assert (await fleet.members.join("a", FIRST, after=7)).incarnation == 8
    assert (await fleet.members.join("a", FIRST, after=3)).incarnation == 9
    assert (await fleet.members.join("a", FIRST, after=20)).incarnation == 21


async def test_a_copied_data_directory_does_not_push_its_original_out(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    with pytest.raises(IdTaken):
        await fleet.members.join("a", SECOND)
    await fleet.members.renew(me, {})
    await fleet.pass_time(LEASE)
    await fleet.members.join("a", SECOND)
    assert (await fleet.of("a")).description == SECOND


async def test_a_lost_host_is_taken_over_once(fleet: Fleet) -> None:
    lost = await fleet.members.join("a", FIRST)
    await fleet.pass_time(LEASE)
    me, other = await fleet.members.join("b", SECOND), await fleet.members.join("c", SECOND)
    seen = await fleet.of("a")
    assert await fleet.members.take_over(me, seen)
    assert not await fleet.members.take_over(other, seen)
    member = await fleet.of("a")
    assert member.taken_over
    assert member.incarnation > lost.incarnation
    assert member.lease_left <= 0


async def test_a_host_whose_lease_runs_is_not_taken_over(fleet: Fleet) -> None:
    await fleet.members.join("a", FIRST)
    me = await fleet.members.join("b", SECOND)
    await fleet.pass_time(LEASE - 1)
    await fleet.members.renew(me, {})
    assert not await fleet.members.take_over(me, await fleet.of("a"))


async def test_a_host_that_has_shown_a_sign_since_it_was_seen_is_not_taken_over(fleet: Fleet) -> None:
    lost = await fleet.members.join("a", FIRST)
    seen = await fleet.of("a")
    await fleet.members.renew(lost, {})
    await fleet.pass_time(LEASE)
    me = await fleet.members.join("b", SECOND)
    assert not await fleet.members.take_over(me, seen)
    seen = await fleet.of("a")
    await fleet.members.join("a", FIRST)
    await fleet.pass_time(LEASE)
    me = await fleet.members.join("b", SECOND)
    assert not await fleet.members.take_over(me, seen)


async def test_a_host_whose_lease_is_over_takes_nothing_over(fleet: Fleet) -> None:
    await fleet.members.join("a", FIRST)
    me = await fleet.members.join("b", SECOND)
    await fleet.pass_time(LEASE)
    with pytest.raises(Fenced):
        await fleet.members.take_over(me, await fleet.of("a"))
    assert not (await fleet.of("a")).taken_over


async def test_a_host_that_was_taken_over_joins_anew(fleet: Fleet) -> None:
    lost = await fleet.members.join("a", FIRST)
    await fleet.pass_time(LEASE)
    assert await fleet.members.take_over(await fleet.members.join("b", SECOND), await fleet.of("a"))
    with pytest.raises(Fenced):
        await fleet.members.renew(lost, {})
    taken = await fleet.of("a")
    again = await fleet.members.join("a", FIRST)
    assert again.incarnation > taken.incarnation
    assert not (await fleet.of("a")).taken_over
    await fleet.members.renew(again, {})


async def test_a_clock_that_is_set_back_keeps_no_lost_host(fleet: Fleet) -> None:
    await fleet.members.join("a", FIRST)
    await fleet.pass_time(-HOUR)
    me = await fleet.members.join("b", SECOND)
    assert await fleet.members.take_over(me, await fleet.of("a"))


async def test_a_clock_that_is_set_back_does_not_fence_a_host_that_renews(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    await fleet.pass_time(-HOUR)
    await fleet.members.renew(me, {})
    assert (await fleet.of("a")).lease_left == pytest.approx(LEASE)


async def test_a_host_that_leaves_need_not_be_taken_over(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    await fleet.members.leave(me)
    assert (await fleet.of("a")).taken_over
    with pytest.raises(Fenced):
        await fleet.members.renew(me, {})
    with pytest.raises(Fenced):
        await fleet.members.leave(me)


async def test_a_drained_host_learns_it_by_its_renewal_and_stays_so_when_it_joins_again(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    assert await fleet.members.mark("a", HostState.DRAINING)
    assert await fleet.members.renew(me, {}) is HostState.DRAINING
    me = await fleet.members.join("a", FIRST)
    assert await fleet.members.renew(me, {}) is HostState.DRAINING
    assert await fleet.members.mark("a", HostState.ACTIVE)
    assert await fleet.members.renew(me, {}) is HostState.ACTIVE
    assert not await fleet.members.mark("b", HostState.DRAINING)


async def test_a_host_has_the_time_of_its_newest_join(fleet: Fleet) -> None:
    await fleet.members.join("a", FIRST)
    before = (await fleet.of("a")).joined_at
    await fleet.pass_time(2)
    await fleet.members.join("a", FIRST)
    assert (await fleet.of("a")).joined_at == pytest.approx(before + 2)


async def test_a_host_that_left_has_said_so_and_one_that_is_lost_has_not(fleet: Fleet) -> None:
    await fleet.members.leave(await fleet.members.join("a", FIRST))
    await fleet.members.join("b", SECOND)
    await fleet.pass_time(LEASE)
    me = await fleet.members.join("c", SECOND)
    assert await fleet.members.take_over(me, await fleet.of("b"))
    assert [(await fleet.of(host)).has_left for host in "abc"] == [True, False, False]
    await fleet.members.join("a", FIRST)
    assert not (await fleet.of("a")).has_left


async def test_a_drain_has_an_end_that_a_later_mark_sets_anew(fleet: Fleet) -> None:
    me = await fleet.members.join("a", FIRST)
    assert (await fleet.of("a")).drain_left is None
    await fleet.members.mark("a", HostState.DRAINING, 100)
    await fleet.pass_time(LEASE - 1)
    await fleet.members.renew(me, {})
    assert (await fleet.of("a")).drain_left == pytest.approx(100 - LEASE + 1)
    await fleet.members.mark("a", HostState.DRAINING, 0)
    assert (await fleet.of("a")).drain_left == pytest.approx(0)
    await fleet.members.join("a", FIRST)
    assert (await fleet.of("a")).drain_left == pytest.approx(0), "a join changes nothing"
    await fleet.members.mark("a", HostState.ACTIVE)
    assert (await fleet.of("a")).drain_left is None
