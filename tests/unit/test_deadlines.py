"""Deadlines of sessions, compared with a full search of a table."""

from hypothesis import given
from hypothesis import strategies as st

from buntime.lifecycle.deadlines import SLACK, Deadlines

NAMES = st.sampled_from("abcdefgh")
TIMES = st.integers(0, 20).map(float)
PUT = st.tuples(st.just("put"), NAMES, TIMES)
TAKE = st.tuples(st.just("take"), TIMES, st.integers(0, 5))


@given(st.lists(PUT | TAKE, max_size=60))
def test_each_session_comes_once_at_its_latest_deadline(steps: list[tuple[str, object, object]]) -> None:
    deadlines, table = Deadlines(), dict[str, float]()
    for verb, first, second in steps:
        if verb == "put":
            assert isinstance(first, str)
            assert isinstance(second, float)
            deadlines.put(first, second)
            table[first] = second
            continue
        assert isinstance(first, float)
        assert isinstance(second, int)
        taken = deadlines.take(first, second)
        due = {name: at for name, at in table.items() if at <= first}
        assert len(taken) == len(set(taken)) == min(second, len(due))
        assert [due[name] for name in taken] == sorted(due.values())[:second]
        for name in taken:
            del table[name]


def test_outdated_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for turn in range(20 * SLACK):
        deadlines.put(f"session {turn % 10}", float(turn))
    assert len(deadlines._heap) <= 2 * 10 + SLACK
    assert len(deadlines.take(20.0 * SLACK, 1000)) == 10


def test_a_later_deadline_replaces_an_earlier_one() -> None:
    deadlines = Deadlines()
    deadlines.put("a", 10.0)
    deadlines.put("a", 50.0)
    assert deadlines.take(49.0, 9) == []
    assert deadlines.take(50.0, 9) == ["a"]
    assert deadlines.take(99.0, 9) == []
