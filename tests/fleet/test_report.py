"""What a host reports of itself, and what others make of it: they trust nothing of it."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from buntime.fleet.report import MOST, MOST_IMAGES, Report, Room, read, told
from buntime.fleet.reporting import capacity_of, report_of
from buntime.testing.sandboxes import FakeSandboxes, small_shell

GB = 1 << 30
HALF = Room(8 * GB, 4 * GB)
REPORT = Report(3, 2, 4, 1.5, HALF, Room(100 * GB, 0), Room(80 * GB, 0), Room(100, 5), frozenset({"img_a", "root-b"}))
JSON = json.loads(json.dumps(dict(told(REPORT))))


def test_a_report_is_read_as_it_was_told() -> None:
    assert read(JSON) == REPORT


def test_a_report_of_a_later_version_is_read_without_what_is_new() -> None:
    assert read(JSON | {"gpus": {"total": 8}, "memory": JSON["memory"] | {"huge": 1}}) == REPORT


def test_what_an_earlier_version_did_not_tell_has_a_default() -> None:
    room = {"total": 8 * GB, "used": 4 * GB}
    shorter = {name: value for name, value in JSON.items() if name != "images"} | {"memory": room}
    assert read(shorter) == replace(REPORT, images=frozenset())


@pytest.mark.parametrize("missing", sorted(JSON.keys() - {"images"}))
def test_a_report_without_what_a_choice_needs_cannot_be_read(missing: str) -> None:
    assert read({name: value for name, value in JSON.items() if name != missing}) is None


@pytest.mark.parametrize(
    "value", ["3", None, True, -1, float("nan"), float("inf"), MOST + 1, 10**400, [], {"total": 1}]
)
@pytest.mark.parametrize("name", ["running", "cores", "load", "memory"])
def test_a_report_with_a_value_of_another_kind_cannot_be_read(name: str, value: object) -> None:
    assert read(JSON | {name: value}) is None


@pytest.mark.parametrize("value", [None, [], [JSON], "x", 3])
def test_what_is_no_object_cannot_be_read(value: object) -> None:
    assert read(value) is None


def test_a_host_without_processors_cannot_be_read() -> None:
    assert read(JSON | {"cores": 0}) is None


def test_images_are_bounded_and_one_that_cannot_be_read_is_left_out() -> None:
    found = read(JSON | {"images": ["img_a", 3, "x" * 101, *(f"img_{number}" for number in range(1000))]})
    assert found is not None
    assert "img_a" in found.images
    assert len(found.images) == MOST_IMAGES - 2


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(["total", "used", "x"]), inner),
    max_leaves=5,
)


@given(some.dictionaries(some.sampled_from(sorted(JSON)), VALUES))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_a_host_tells_never_fails_who_reads_it(changed: dict[str, object]) -> None:
    found = read(JSON | changed)
    assert found is None or 0 <= found.room <= 1


def test_the_room_of_a_host_is_that_of_its_shortest_resource() -> None:
    assert REPORT.room == 0.5
    assert replace(REPORT, addresses=Room(100, 70)).room == pytest.approx(0.3)
    assert replace(REPORT, memory=Room(8 * GB, 4 * GB, 2 * GB)).room == pytest.approx(0.25)
    assert replace(REPORT, volumes=Room(80 * GB, 79 * GB, 2 * GB)).room == 0


def test_a_busy_host_has_little_room_but_refuses_nothing_for_that() -> None:
    busy = replace(REPORT, load=9.0)
    assert busy.room == 0
    assert not busy.is_near_a_limit
    assert replace(REPORT, memory=Room(100, 96)).is_near_a_limit


def test_a_host_reports_what_its_sandboxes_measure() -> None:
    sandboxes = FakeSandboxes(small_shell)
    sandboxes.parked = 2
    found, numbers = report_of(sandboxes), sandboxes.numbers()
    assert (found.running, found.parked, found.memory.reserved) == (0, 2, numbers.memory.reserved)
    assert found.addresses.used == 0, "a parked sandbox gives its address to a session"
    assert read(json.loads(json.dumps(dict(capacity_of(sandboxes))))) is not None
