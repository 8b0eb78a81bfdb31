from itertools import product

import pytest

from tests.fleet.history.planning import LASTS, WITH_A_WAY, Fault, planned
from tests.fleet.lab.cuts import Way


def test_a_seed_has_one_plan() -> None:
    every = list(Fault)
    assert planned("a", every, 3, 5000, 100) == planned("a", every, 3, 5000, 100)
    assert planned("a", every, 3, 5000, 100) != planned("b", every, 3, 5000, 100)


def test_all_faults_take_turns_and_all_hosts_get_some() -> None:
    turns = len(Fault) + 2 * len(WITH_A_WAY)
    plan = planned("a", list(Fault), 3, 100 * (2 * turns + 1), 100)
    assert [each.at for each in plan] == [100 * turn for turn in range(1, 2 * turns + 1)]
    assert {each.fault for each in plan[:turns]} == {each.fault for each in plan[turns:]} == set(Fault)
    assert {each.host for each in plan} == {1, 2, 3}
    assert all(each.seconds in LASTS[each.fault] for each in plan)


def test_each_cut_is_made_both_ways_and_one_way() -> None:
    plan = planned("a", WITH_A_WAY, 3, 100 * (3 * len(WITH_A_WAY) + 1), 100)
    assert {(each.fault, each.way) for each in plan} == set(product(WITH_A_WAY, Way))


@pytest.mark.parametrize("faults", [[], [Fault.SERVER]])
def test_no_fault_comes_where_there_are_none_or_few_operations(faults: list[Fault]) -> None:
    assert planned("a", faults, 3, 100, 100) == []
    assert bool(planned("a", faults, 3, 1000, 100)) == bool(faults)
