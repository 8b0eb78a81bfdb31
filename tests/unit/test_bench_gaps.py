import pytest

from bench.gaps import pauses

INTERVAL = 0.01
DONE = [1.00, 1.01, 1.05, 1.06, 1.07, 1.20, 1.21]


def test_a_write_that_kept_the_pace_has_no_pause() -> None:
    assert pauses(DONE, INTERVAL, 1.052, 1.055) == [pytest.approx(0)]


def test_a_pause_counts_while_any_part_of_it_is_within_the_time() -> None:
    assert pauses(DONE, INTERVAL, 1.02, 1.03) == [pytest.approx(0.03)]
    assert max(pauses(DONE, INTERVAL, 1.062, 1.08)) == pytest.approx(0.12)
    assert max(pauses(DONE, INTERVAL, 1.19, 1.205)) == pytest.approx(0.12)


def test_a_pause_that_was_over_before_does_not_count() -> None:
    assert max(pauses(DONE, INTERVAL, 1.055, 1.065)) == pytest.approx(0)


def test_an_early_write_is_no_negative_pause() -> None:
    assert pauses([1.0, 1.001, 1.002], INTERVAL, 1.0005, 1.0015) == [0.0, 0.0]


def test_the_first_write_has_no_pause() -> None:
    assert pauses([1.0, 1.5], INTERVAL, 1.0, 1.4) == [pytest.approx(0.49)]


@pytest.mark.parametrize("span", [(0.1, 0.9), (1.3, 1.4), (1.205, 1.4)])
def test_a_time_that_the_program_did_not_cover_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="did not write"):
        pauses(DONE, INTERVAL, *span)
