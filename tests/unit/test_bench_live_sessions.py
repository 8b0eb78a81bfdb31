from itertools import pairwise

import pytest

from bench.figures.live_sessions import window_ends


def test_there_is_a_window_at_the_first_sessions_and_one_at_the_last() -> None:
    assert window_ends(100, 4000) == [100, 500, 1000, 2000, 4000]
    assert window_ends(100, 1000) == [100, 500, 1000]
    assert window_ends(100, 3000) == [100, 500, 1000, 2000, 3000]


@pytest.mark.parametrize(("sample", "total"), [(4, 10), (5, 10), (100, 250), (100, 550), (100, 1050), (100, 4050)])
def test_windows_do_not_overlap(sample: int, total: int) -> None:
    ends = window_ends(sample, total)
    assert ends[-1] == total
    assert all(later - earlier >= sample for earlier, later in pairwise([0, *ends]))
