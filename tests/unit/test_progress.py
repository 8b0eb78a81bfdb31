"""How far restores are, and when a request should come again."""

import pytest

from buntime.lifecycle.progress import LONGEST_RETRY, Restores


class Steady:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def restored(done: int, total: int, seconds: float) -> int:
    """Returns the Retry-After of a request that waits for 8 seconds."""
    steady = Steady()
    restores = Restores(steady)
    with restores.under_way("one", total) as restore:
        steady.now += 1000.0  # waits for its turn
        restore.begin()
        steady.now += seconds
        restore.read(done)
        return restores.all().retry_after(8.0, 2)


@pytest.mark.parametrize(
    ("done", "total", "seconds", "after"),
    [
        (0, 100, 8.0, 2),  # nothing is known
        (50, 100, 8.0, 1),  # it ends while the next request waits
        (25, 100, 8.0, 16),  # 24 s are left
        (1, 100, 8.0, LONGEST_RETRY),
        (100, 100, 8.0, 1),
        (120, 100, 8.0, 1),
    ],
)
def test_a_request_comes_again_when_the_restore_ends_while_it_waits(
    done: int, total: int, seconds: float, after: int
) -> None:
    assert restored(done, total, seconds) == after


def test_sums_have_what_is_under_way_and_nothing_of_what_has_ended() -> None:
    restores = Restores()
    with restores.under_way("one", 100) as one, restores.under_way("two", 50) as two:
        one.read(30)
        two.read(60)
        assert (restores.all().restores, restores.all().done, restores.all().total) == (2, 80, 150)
        assert restores.of(["two", "three"]).details() == {
            "reason": "restoring",
            "restoredBytes": 50,
            "totalBytes": 50,
        }
    assert (restores.all().restores, restores.all().done, restores.all().total) == (0, 0, 0)
    assert restores.all().details() == {}


def test_a_restore_that_begins_again_has_read_nothing() -> None:
    restores = Restores()
    with restores.under_way("one", 100) as one:
        one.read(30)
        one.begin()
        assert restores.all().done == 0
