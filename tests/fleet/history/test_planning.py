import pytest

from tests.fleet.history.planning import LASTS, Fault, planned


def test_a_seed_has_one_plan() -> None:
    every = list(Fault)
    assert planned("a", every, 3, 5000, 100) == planned("a", every, 3, 5000, 100)
    assert planned("a", every, 3, 5000, 100) != planned("b", every, 3, 5000, 100)


def test_all_faults_take_turns_and_all_hosts_get_some() -> None:
    plan = planned("a", list(Fault), 3, 100 * (2 * len(Fault) + 1), 100)
    assert [each.at for each in plan] == [100 * turn for turn in range(1, 2 * len(Fault) + 1)]
    assert {each.fault for each in plan[: len(Fault)]} == {each.fault for each in plan[len(Fault) :]} == set(Fault)
    assert {each.host for each in plan} == {1, 2, 3}
    assert all(each.seconds in LASTS[each.fault] for each in plan)


@pytest.mark.parametrize("faults", [[], [Fault.SERVER]])
def test_no_fault_comes_where_there_are_none_or_few_operations(faults: list[Fault]) -> None:
    assert planned("a", faults, 3, 100, 100) == []
    assert bool(planned("a", faults, 3, 1000, 100)) == bool(faults)
