"""Hosts as operators see them, and whether a host is to drain."""

import json
import math

import pytest

from buntime.fleet.budget import BUDGET
from buntime.fleet.hosts import Standing
from buntime.fleet.listing import FleetHosts
from buntime.fleet.marked import Marked
from buntime.fleet.members import Description, HostState, SessionCounts
from buntime.fleet.report import Report, Room, told
from buntime.testing.members import FakeMembers
from tests.clock import Clock

ROOM = Room(10, 5)
REPORT = Report(1, 0, 2, 0.5, ROOM, ROOM, ROOM, ROOM)
FIRST = Description("10.0.0.1:8443", "0.1.0", json.loads(json.dumps(dict(told(REPORT)))))
SECOND = Description("10.0.0.2:8443", "0.0.9")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def members(clock: Clock) -> FakeMembers:
    return FakeMembers(clock)


async def test_each_host_is_listed_with_its_report_lease_and_sessions(members: FakeMembers, clock: Clock) -> None:
    me = await members.join("a", FIRST)
    await members.join("b", SECOND)
    clock.now += 2
    await members.renew(me, FIRST.capacity)
    members.counts = {"a": SessionCounts(1, 2, 3, 1), "": SessionCounts(asleep=7)}
    listing = await FleetHosts(members).list()
    first, second = listing.hosts
    assert listing.nobody == SessionCounts(asleep=7)
    assert (first.id, first.standing, first.address, first.version) == ("a", Standing.ACTIVE, *_of(FIRST))
    assert (first.report, first.sessions, first.joined_at) == (REPORT, SessionCounts(1, 2, 3, 1), 1000)
    assert first.lease is not None
    assert (first.lease.seconds_left, first.lease.renewals) == (BUDGET.lease, 1)
    assert (second.report, second.sessions) == (None, SessionCounts())
    assert second.lease is not None
    assert second.lease.seconds_left == BUDGET.lease - 2


def _of(description: Description) -> tuple[str, str]:
    return description.address, description.version


async def test_hosts_are_active_draining_lost_or_have_left(members: FakeMembers, clock: Clock) -> None:
    lapsed = await members.join("lapsed", FIRST)
    clock.now += BUDGET.lease
    me = await members.join("a", FIRST)
    await members.join("drains", FIRST)
    await members.leave(await members.join("left", FIRST))
    await members.mark("drains", HostState.DRAINING, 90)
    await members.mark("left", HostState.DRAINING, 90)
    hosts = {host.id: host for host in (await FleetHosts(members).list()).hosts}
    assert {host.id: host.standing for host in hosts.values()} == {
        "lapsed": Standing.LOST,
        "a": Standing.ACTIVE,
        "drains": Standing.DRAINING,
        "left": Standing.LEFT,
    }
    assert (hosts["drains"].drain_left, hosts["a"].drain_left) == (90, None)
    assert hosts["left"].is_draining
    assert hosts["lapsed"].lease is not None
    assert hosts["lapsed"].lease.seconds_left == 0
    assert await members.take_over(me, next(each for each in await members.list() if each.id == lapsed.host))
    assert await FleetHosts(members).standings() == dict.fromkeys(Standing, 1)


async def test_a_host_knows_until_when_it_drains(members: FakeMembers, clock: Clock) -> None:
    await members.join("a", FIRST)
    await members.join("b", SECOND)
    state = HostState.ACTIVE
    mark = Marked("a", members, lambda: state)
    assert not mark.is_on()
    assert await mark.seconds_left() == math.inf
    await members.mark("a", HostState.DRAINING, 90)
    await members.mark("b", HostState.DRAINING, 5)
    state = HostState.DRAINING
    assert mark.is_on()
    clock.now += 30
    assert await mark.seconds_left() == 60
