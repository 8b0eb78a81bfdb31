"""No host acts while another could have taken over from it, whatever is late, lost, paused or jumps.

Each mutant takes one guard out of the code, and the same search must find what it is for.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buntime.fleet import ownership
from buntime.fleet.lease import Lease, Phase
from buntime.fleet.members import Member, Membership
from buntime.fleet.sightings import Sightings
from buntime.testing.members import FakeMembers
from tests.fleet.model import Violation, World

STEPS = 60
WALKS = 4_000  # at most, of a mutant; each is found within 400
MOST_CHOICES = 60

Patch = Callable[[pytest.MonkeyPatch], None]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, MOST_CHOICES), max_size=STEPS), st.integers(2, 3))
def test_a_host_never_acts_while_another_could_have_taken_over(choices: list[int], hosts: int) -> None:
    World(hosts).walk(choices)


def test_random_walks_take_over_and_find_no_violation() -> None:
    taken_over = 0
    for seed in range(1_500):
        world = _walk(seed)
        taken_over += world.taken_over
    assert taken_over > 100, "otherwise the walks would show nothing"


def _walk(seed: int) -> World:
    chance, world = random.Random(seed), World(2 + seed % 2)
    world.walk(chance.randrange(10_000) for _ in range(STEPS))
    return world


# --- mutants ---


def _fence_removed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "at", lambda lease, now: lease)
    patch.setattr(Lease, "may_act", lambda lease, now: lease.phase is Phase.HOLDING)


def _renewal_counted_from_its_answer(patch: pytest.MonkeyPatch) -> None:
    renewed = Lease.renewed
    patch.setattr(Lease, "renewed", lambda lease, incarnation, sent, now: renewed(lease, incarnation, now, now))


def _incarnation_not_compared_after_a_report(patch: pytest.MonkeyPatch) -> None:
    compared = Lease.compared
    patch.setattr(Lease, "compared", lambda lease, incarnation, now: compared(lease, lease.incarnation, now))


def _incarnation_not_compared_in_a_sighting(patch: pytest.MonkeyPatch) -> None:
    look, take_over = Sightings.look, FakeMembers.take_over

    def looking(sightings: Sightings, members: list[Member], now: float) -> list[Member]:
        return look(sightings, [replace(each, incarnation=0) for each in members], now)

    async def taking_over(members: FakeMembers, me: Membership, lost: Member) -> bool:
        rows = {each.id: each for each in await members.list()}
        return await take_over(members, me, replace(lost, incarnation=rows[lost.id].incarnation))

    patch.setattr(Sightings, "look", looking)
    patch.setattr(FakeMembers, "take_over", taking_over)


def _counter_not_watched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sightings, "look", lambda _, members, now: [each for each in members if not each.taken_over])


def _epoch_not_compared(patch: pytest.MonkeyPatch) -> None:
    def keep_all(host: str, held: dict[str, int], rows: Any) -> ownership.Compared:
        return ownership.Compared(frozenset(held), frozenset(), frozenset(), frozenset())

    patch.setattr(ownership, "compare", keep_all)


MUTANTS: list[Patch] = [
    _fence_removed,
    _renewal_counted_from_its_answer,
    _incarnation_not_compared_after_a_report,
    _incarnation_not_compared_in_a_sighting,
    _counter_not_watched,
    _epoch_not_compared,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_the_same_search_finds_a_violation_of(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(WALKS):
        try:
            _walk(seed)
        except Violation:
            return
    pytest.fail(f"{WALKS} walks found no violation")
