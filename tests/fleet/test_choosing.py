"""Where a create goes: the best of two, and never first to a host that may refuse."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from buntime.fleet.choices import Choices
from buntime.fleet.choosing import Rated, candidates, rated
from buntime.fleet.members import Description, HostState, Member
from buntime.fleet.report import Report, Room, told
from buntime.fleet.taking_over import TakingOver
from buntime.testing.members import FakeMembers

GB = 1 << 30
FREE = Room(100, 0)
EMPTY = Report(0, 0, 4, 0, FREE, FREE, FREE, FREE)
HALF = replace(EMPTY, memory=Room(100, 50))
FULL = replace(EMPTY, memory=Room(100, 97))


def host(name: str, report: Report | None = EMPTY, *, drains: bool = False) -> Rated:
    return Rated(name, f"{name}:8443", drains, report)


def chosen(hosts: list[Rated], image: str = "", me: str = "a", seed: int = 1) -> list[str]:
    return [each.id for each in candidates(hosts, image, me, Random(seed))]


def firsts(hosts: list[Rated], image: str = "", me: str = "") -> Counter[str]:
    return Counter(chosen(hosts, image, me, seed)[0] for seed in range(1000))


def test_every_host_is_a_candidate_once() -> None:
    hosts = [host("a"), host("b", None), host("c", FULL), host("d", drains=True), host("e", HALF)]
    for seed in range(50):
        assert sorted(chosen(hosts, seed=seed)) == ["a", "b", "c", "d", "e"]


def test_the_host_with_more_room_comes_first() -> None:
    assert firsts([host("a", HALF), host("b")]) == {"b": 1000}


def test_a_host_that_has_the_image_comes_before_one_with_more_room() -> None:
    with_image = host("a", replace(HALF, images=frozenset({"img_x"})))
    assert firsts([with_image, host("b")], "img_x") == {"a": 1000}
    assert firsts([with_image, host("b")], "img_other") == {"b": 1000}
    assert firsts([with_image, host("b")]) == {"b": 1000}, "every host has the default image"


def test_the_only_host_that_has_the_image_comes_first_of_many() -> None:
    with_image = host("a", replace(HALF, images=frozenset({"img_x"})))
    assert firsts([with_image, *(host(name) for name in "bcdefgh")], "img_x") == {"a": 1000}


def test_of_equals_this_host_comes_first() -> None:
    assert firsts([host("a"), host("b")], me="b") == {"b": 1000}


def test_creates_spread_over_the_hosts() -> None:
    spread = firsts([host(name) for name in "abcdefgh"], me="a")
    assert set(spread) == set("abcdefgh")
    assert max(spread.values()) < 400


def test_the_emptiest_host_does_not_get_all_creates() -> None:
    spread = firsts([host("a"), *(host(name, HALF) for name in "bcdefgh")])
    assert 150 < spread["a"] < 350, "it is one of the two in a quarter of the cases"


def test_hosts_that_may_refuse_come_behind_all_others_and_those_that_drain_last() -> None:
    hosts = [host("drains", drains=True), host("full", FULL), host("unreadable", None), host("a", HALF), host("b")]
    for seed in range(100):
        order = chosen(hosts, seed=seed)
        assert order[:2] == ["b", "a"]
        assert set(order[2:4]) == {"full", "unreadable"}
        assert order[4] == "drains"


def test_a_host_that_drains_sends_its_own_creates_elsewhere() -> None:
    for seed in range(100):
        assert chosen([host("a", drains=True), host("b", FULL)], me="a", seed=seed) == ["b", "a"]


def test_only_hosts_whose_lease_runs_are_candidates() -> None:
    capacity = dict(told(EMPTY))

    def member(name: str, left: float = 5, **other: bool) -> Member:
        state = HostState.DRAINING if other.pop("drains", False) else HostState.ACTIVE
        return Member(name, 1, 1, left, other.pop("taken_over", False), state, Description(name, "1", capacity))

    found = rated([member("a"), member("b", -1), member("c", taken_over=True), member("d", drains=True)])
    assert [(each.id, each.is_draining, each.report) for each in found] == [("a", False, EMPTY), ("d", True, EMPTY)]
    assert rated([])[:] == []


def test_a_fleet_without_hosts_has_no_candidates() -> None:
    assert chosen([]) == []


async def test_a_create_is_sent_by_the_newest_list_and_asks_nobody() -> None:
    now = [1000.0]
    members, capacity = FakeMembers(lambda: now[0]), dict(told(EMPTY))
    choices = Choices("a", members, Random(1))
    assert choices.of("") == []
    await members.join("a", Description("a:8443", "1", dict(told(FULL))))
    await members.join("b", Description("b:8443", "1", capacity))
    await choices.look()
    assert [each.id for each in choices.of("")] == ["b", "a"]
    await members.mark("b", HostState.DRAINING)
    assert [each.id for each in choices.of("")] == ["b", "a"], "it looks once a second"
    await choices.look()
    assert [each.id for each in choices.of("")] == ["a", "b"]


async def test_a_member_that_looks_for_lost_hosts_saves_the_choices_a_look() -> None:
    members = Counted(lambda: 1000.0)
    choices = Choices("a", members, Random(1))
    me = await members.join("a", Description("a:8443", "1", dict(told(FULL))))
    await members.join("b", Description("b:8443", "1", dict(told(EMPTY))))
    await TakingOver(members, me, choices.see).look()
    keeping = asyncio.create_task(choices.keep())
    await asyncio.sleep(0.05)
    keeping.cancel()
    assert ([each.id for each in choices.of("")], members.lists) == (["b", "a"], 1)


async def test_an_older_list_that_comes_later_changes_nothing() -> None:
    members = FakeMembers(lambda: 1000.0)
    choices = Choices("a", members, Random(1))
    before = await members.list()
    await members.join("a", Description("a:8443", "1", dict(told(EMPTY))))
    choices.see(await members.list(), 2.0)
    choices.see(before, 1.0)
    assert [each.id for each in choices.of("")] == ["a"]


class Counted(FakeMembers):
    lists = 0

    async def list(self) -> Sequence[Member]:
        self.lists += 1
        return await super().list()
