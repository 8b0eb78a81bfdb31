"""What the kernel may charge a volume that shares content, decided from what the volume contains."""

import time
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from buntime.plan import MB
from buntime.sandboxes.kernel.shares import FREED, SLACK, Charges, Measured, Share

LIMIT = 1024 * MB
BYTES = st.integers(min_value=0, max_value=2 * LIMIT)


def measured(**fields: int) -> Measured:
    return replace(Measured(size=400 * MB, old=400 * MB, charged=700 * MB), **fields)


def now(referenced: int, promised: int = 0) -> Charges:
    return Charges(referenced, promised, prepared=0, changed=0)


@given(size=BYTES, old=BYTES, charged=BYTES, promised=BYTES)
def test_no_more_can_be_added_than_what_is_left_and_the_slack(size: int, old: int, charged: int, promised: int) -> None:
    one = Measured(size, old, charged, promised)
    added = one.bound(LIMIT) - charged
    assert added >= 0
    assert size + promised + added <= max(LIMIT + min(SLACK, old), size + promised)
    if size >= LIMIT:
        assert added == 0
    else:
        assert added >= LIMIT - size - promised


def test_what_is_shared_with_nobody_gives_no_slack() -> None:
    assert measured(old=0).bound(LIMIT) == (700 + 624) * MB
    assert measured(old=5 * MB).bound(LIMIT) == (700 + 624 + 5) * MB


def test_a_volume_is_measured_again_before_it_can_have_reached_its_limit() -> None:
    assert not measured().is_due(LIMIT, now(700 * MB), freed=0)
    assert not measured().is_due(LIMIT, now(1000 * MB), freed=0)
    assert measured().is_due(LIMIT, now(1000 * MB, 100 * MB), freed=0)
    almost = measured(size=LIMIT - 2 * MB)
    assert not almost.is_due(LIMIT, now(702 * MB), freed=0)
    assert almost.is_due(LIMIT, now(703 * MB), freed=0)


def test_a_volume_is_measured_again_when_it_was_charged_less_for_a_while() -> None:
    assert not measured().is_due(LIMIT, now(700 * MB), FREED)
    assert measured().is_due(LIMIT, now(700 * MB), FREED + 1)


def test_a_full_volume_and_one_whose_unwritten_pages_decide_are_measured_again() -> None:
    full, vague = measured(size=LIMIT), measured(promised=624 * MB)
    assert (full.is_full(LIMIT), full.is_vague(LIMIT), full.is_due(LIMIT, now(0), 0)) == (True, False, True)
    assert (vague.is_full(LIMIT), vague.is_vague(LIMIT), vague.is_due(LIMIT, now(0), 0)) == (False, True, True)
    assert vague.bound(LIMIT) == vague.charged + SLACK


def refused_since(before: Measured | None, found: Measured, *, at_bound: bool = True) -> bool:
    share, began = Share(LIMIT, before), time.monotonic()
    share.take(found, at_bound=at_bound)
    assert share.measured is found
    return share.refused_at >= began


def test_a_volume_with_room_that_reached_what_the_kernel_might_charge_was_refused_content() -> None:
    assert refused_since(measured(), measured(charged=1100 * MB))
    assert refused_since(None, measured())
    assert not refused_since(measured(), measured(charged=1100 * MB), at_bound=False)


def test_a_full_volume_is_refused_what_it_has_no_room_for_and_may_be_charged_for_what_it_deletes() -> None:
    assert not refused_since(measured(), measured(size=LIMIT))
    assert not refused_since(measured(size=LIMIT), measured())
