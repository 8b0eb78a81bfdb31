"""What is measured, and how measurements add up to points, compared with sums over the seconds themselves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.errors import InvalidRequest
from buntime.measurement import (
    COARSE,
    DEFAULT_POINTS,
    FINE_SECONDS,
    INTERVAL,
    KEPT_SECONDS,
    MOST_POINTS,
    Counted,
    Measurement,
    in_steps,
    measured,
    points_of,
    steps_of,
)
from buntime.usage import Counters

NOW = 1_705_660_200
NUMBERS = st.integers(0, 1 << 40)
MEASUREMENTS = st.builds(
    Measurement,
    at=st.integers(NOW, NOW + 5000),
    span=st.integers(1, 20_000),
    cpu=st.integers(0, 40_000_000),
    bytes_in=NUMBERS,
    bytes_out=NUMBERS,
    memory=NUMBERS,
    disk=NUMBERS,
    processes=st.integers(0, 600),
)


def counted(cpu: int = 0, sandbox: str = "sb", received: int = 0, sent: int = 0, disk: int | None = 5) -> Counted:
    return Counted(Counters(sandbox, cpu, sent, 7), received, 2, disk)


def test_a_measurement_has_what_was_used_and_the_levels_of_its_end() -> None:
    found = measured(counted(100, received=10, sent=1), counted(350, received=30, sent=2), NOW, 10_000)
    assert found == Measurement(NOW, 10_000, 250, 20, 1, 7, 5, 2)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_no_counter_gives_a_negative_use(before: int, after: int, received: int, received_then: int) -> None:
    found = measured(counted(before, received=received), counted(after, received=received_then), NOW, 10_000)
    assert found is not None
    assert found.cpu == max(0, after - before)
    assert found.bytes_in == max(0, received_then - received)


def test_counters_of_another_sandbox_are_never_compared() -> None:
    assert measured(counted(100), counted(5, sandbox="other"), NOW, 10_000) is None


@pytest.mark.parametrize("span", [0, -5])
def test_no_time_gives_no_measurement(span: int) -> None:
    assert measured(counted(), counted(9), NOW, span) is None


def test_a_disk_that_is_not_known_now_is_as_it_was() -> None:
    found = measured(counted(disk=8), counted(disk=None), NOW, 1000)
    assert found is not None
    assert found.disk == 8


@given(st.lists(MEASUREMENTS, max_size=40), st.sampled_from([10, 20, 70, 300, 900]))
def test_points_add_up_to_the_measurements(measurements: list[Measurement], step: int) -> None:
    points = points_of(measurements, step)
    assert [point.at for point in points] == sorted({one.at // step * step for one in measurements})
    for total in ("span", "cpu", "bytes_in", "bytes_out"):
        assert sum(getattr(point, total) for point in points) == sum(getattr(one, total) for one in measurements)
    for point in points:
        within = [one for one in measurements if one.at // step * step == point.at]
        assert point.most_memory == max(one.memory for one in within)
        assert point.memory == sum(one.memory * one.span for one in within)
        assert point.most_memory * point.span >= point.memory
        assert point.most_cpu >= point.cpu // point.span


@given(st.lists(MEASUREMENTS, max_size=40), st.integers(1, 6))
def test_coarse_points_of_fine_points_are_those_of_the_measurements(
    measurements: list[Measurement], times: int
) -> None:
    assert in_steps(points_of(measurements, COARSE), times * COARSE) == points_of(measurements, times * COARSE)


@given(MEASUREMENTS, MEASUREMENTS)
def test_two_measurements_of_one_interval_keep_their_sums(one: Measurement, other: Measurement) -> None:
    both = one.and_then(replace(other, at=one.at))
    (point,), (expected,) = points_of([both], INTERVAL), points_of([one, replace(other, at=one.at)], INTERVAL)
    assert (point.span, point.cpu, point.bytes_in) == (expected.span, expected.cpu, expected.bytes_in)
    assert both.memory == other.memory


TIMES = st.none() | st.integers(NOW - 2 * KEPT_SECONDS, NOW + 2 * FINE_SECONDS)


@given(TIMES, TIMES, st.none() | st.integers(1, 604_800))
def test_what_is_shown_is_kept_bounded_and_no_finer_than_there_is(
    since: int | None, until: int | None, step: int | None
) -> None:
    try:
        steps = steps_of(NOW, since, until, step)
    except InvalidRequest:
        end = NOW if until is None else until
        assert since is not None
        assert since >= end
        return
    assert steps.since <= steps.until <= NOW
    assert steps.since == steps.until or steps.since >= NOW - KEPT_SECONDS
    assert steps.step % (INTERVAL if steps.since >= NOW - FINE_SECONDS - COARSE else COARSE) == 0
    points = -(-(steps.until - steps.first) // steps.step)
    assert points <= MOST_POINTS
    if step is None:
        assert points <= DEFAULT_POINTS + 1
    else:
        assert step <= steps.step < step + COARSE


@pytest.mark.parametrize("late", [0, 1, 60])
def test_the_last_day_is_shown_in_the_finest_steps_also_if_the_request_arrives_late(late: int) -> None:
    assert steps_of(NOW + late, NOW - FINE_SECONDS, NOW, INTERVAL).step == INTERVAL


def test_the_last_hour_is_shown_in_the_finest_steps() -> None:
    assert steps_of(NOW, None, None, None).step == INTERVAL


@pytest.mark.parametrize(
    ("ago", "asked", "given_step"), [(60, 1, 10), (60, 11, 20), (90_000, 10, 300), (90_000, 301, 600)]
)
def test_a_step_is_rounded_up_to_what_is_kept(ago: int, asked: int, given_step: int) -> None:
    assert steps_of(NOW, NOW - ago, None, asked).step == given_step
