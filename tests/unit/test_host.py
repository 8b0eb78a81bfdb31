import ipaddress
import itertools
from pathlib import Path

import pytest

from buntime.errors import Unavailable
from buntime.sandboxes.kernel.host import FIRST_UID, PARTS, REST_SECONDS, SLOTS, UIDS, Part, Slots


def part(index: int) -> Part:
    whole = ipaddress.IPv4Network("10.213.0.0/16")
    return Part(index, "abcd", list(whole.subnets(new_prefix=20))[index])


def test_no_two_sandboxes_of_a_host_share_an_address_or_a_user_id() -> None:
    ends = [(part(i), slot) for i in range(PARTS) for slot in (0, 1, SLOTS - 1)]
    addresses = {p.address(slot) for p, slot in ends} | {p.gateway for p, _ in ends}
    assert len(addresses) == len(ends) + PARTS
    first_uids = sorted(p.first_uid(slot) for p, slot in ends)
    assert all(b - a >= UIDS for a, b in itertools.pairwise(first_uids))
    assert first_uids[0] >= FIRST_UID
    assert first_uids[-1] + UIDS < 2**32 - 1


def test_an_interface_name_fits_linux() -> None:
    assert len(part(0).interface(SLOTS - 1)) <= 15
    assert part(0).interface(1).startswith("buntimeabcd")


def test_a_freed_slot_rests_before_it_is_used_again(tmp_path: Path) -> None:
    now = 0.0
    slots = Slots(tmp_path / "slot", clock=lambda: now)
    taken = [slots.take() for _ in range(SLOTS)]
    assert len(set(taken)) == SLOTS
    slots.free(taken[5])
    with pytest.raises(Unavailable):
        slots.take()
    now += REST_SECONDS
    assert slots.take() == taken[5]


def test_slots_of_sandboxes_found_at_start_are_not_given_out(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slot")
    slots.use([0, 1, 3])
    assert [slots.take(), slots.take()] == [2, 4]


def test_after_a_restart_the_numbers_that_were_used_before_it_come_last(tmp_path: Path) -> None:
    before = Slots(tmp_path / "slot")
    used = {before.take() for _ in range(5)}
    after = Slots(tmp_path / "slot")
    assert not used & {after.take() for _ in range(SLOTS - 5)}
    assert after.take() in used
