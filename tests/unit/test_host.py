import itertools
import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from buntime.config import BadSetting, Config
from buntime.errors import Unavailable
from buntime.sandboxes.kernel import host
from buntime.sandboxes.kernel.host import (
    BLOCK,
    BLOCKS,
    FIRST_UID,
    REST_SECONDS,
    UIDS,
    NoPart,
    Part,
    Slots,
    claim_part,
    held_part,
    other_data_dirs,
    release_part,
)

WHOLE = IPv4Network("10.213.0.0/16")
MANY = 10_000
SLOTS = 4094


def part(*blocks: int) -> Part:
    return Part("abcd", WHOLE, blocks)


def test_ten_thousand_sandboxes_have_addresses_and_user_ids_of_their_own() -> None:
    three = part(4, 0, 7)
    assert three.slots >= MANY
    addresses = [IPv4Address(three.address(slot)) for slot in range(three.slots)]
    assert len({*addresses, IPv4Address(three.gateway), IPv4Address(three.resolver)}) == three.slots + 2
    assert all(any(address in network for network in three.networks) for address in addresses)
    assert all(address in WHOLE for address in addresses)
    first_uids = sorted(three.first_uid(slot) for slot in range(three.slots))
    assert all(b - a >= UIDS for a, b in itertools.pairwise(first_uids))


def test_no_two_sandboxes_of_a_host_share_an_address_or_a_user_id() -> None:
    parts = [part(3, 0), part(1), part(2, 10), part(*range(4, 10))]
    assert sorted(block for p in parts for block in p.blocks) == list(range(BLOCKS))
    addresses = [p.address(slot) for p in parts for slot in range(p.slots)]
    assert len({*addresses, *(p.gateway for p in parts), *(p.resolver for p in parts)}) == BLOCKS * BLOCK
    first_uids = sorted(p.first_uid(slot) for p in parts for slot in range(p.slots))
    assert all(b - a >= UIDS for a, b in itertools.pairwise(first_uids))
    assert first_uids[0] >= FIRST_UID
    assert first_uids[-1] + UIDS <= 2**32 - 1, "Linux reserves the last id"


def test_the_slot_of_an_address_is_the_one_that_has_it() -> None:
    two = part(2, 0)
    for slot in (0, 1, SLOTS - 1, SLOTS, SLOTS + 1, SLOTS + 2, two.slots - 1):
        assert two.slot_of(IPv4Address(two.address(slot))) == slot
    for address in (two.gateway, two.resolver, part(1).address(0), "10.212.255.255", "10.213.48.0", "192.0.2.1"):
        assert two.slot_of(IPv4Address(address)) is None


def test_an_interface_name_fits_linux() -> None:
    every = part(*range(BLOCKS))
    assert len(every.interface(every.slots - 1)) <= 15
    assert every.interface(1).startswith("buntimeabcd")


# --- claims ---


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Moves claims to a temporary directory, since real servers may run on this host."""
    monkeypatch.setattr(host, "SHARED_RUN_DIR", tmp_path / "run")
    return tmp_path / "run"


def config(tmp_path: Path, name: str, addresses: int = SLOTS, network: str = str(WHOLE)) -> Config:
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    return Config(data_dir=directory, sandbox_addresses=addresses, network=network)


def test_a_server_takes_as_many_blocks_as_it_needs_addresses(tmp_path: Path) -> None:
    assert claim_part(config(tmp_path, "a")).blocks == (0,)
    assert claim_part(config(tmp_path, "b", MANY)).blocks == (1, 2, 3)
    assert claim_part(config(tmp_path, "c", SLOTS + 1)).blocks == (4, 5)
    assert set(other_data_dirs(config(tmp_path, "a"))) == {tmp_path / "b", tmp_path / "c"}


def test_a_claim_stays_until_it_is_released_or_its_directory_is_gone(tmp_path: Path) -> None:
    first, second = config(tmp_path, "a", MANY), config(tmp_path, "b")
    claimed = claim_part(first)
    assert claim_part(second).blocks == (3,)
    assert claim_part(first) == claimed
    release_part(claimed)
    assert claim_part(config(tmp_path, "c")).blocks == (0,)
    second.data_dir.rmdir()
    assert claim_part(config(tmp_path, "d", MANY)).blocks == (1, 2, 3)


def test_a_server_that_needs_more_keeps_its_addresses_beside_new_ones(tmp_path: Path) -> None:
    before = claim_part(config(tmp_path, "a"))
    between = claim_part(config(tmp_path, "b"))
    after = claim_part(config(tmp_path, "a", MANY))
    assert after.slots >= MANY
    for slot in range(before.slots):
        assert (after.address(slot), after.first_uid(slot)) == (before.address(slot), before.first_uid(slot))
    assert (after.gateway, after.resolver) == (before.gateway, before.resolver)
    assert not set(between.blocks) & set(after.blocks)


def test_a_server_that_needs_fewer_keeps_all_that_its_sandboxes_may_have(tmp_path: Path) -> None:
    many = claim_part(config(tmp_path, "a", MANY))
    assert claim_part(config(tmp_path, "a")) == many


def test_blocks_stay_in_the_order_in_which_they_were_claimed(tmp_path: Path) -> None:
    gone = claim_part(config(tmp_path, "a"))
    grown = config(tmp_path, "b", MANY)
    before = claim_part(config(tmp_path, "b"))
    release_part(gone)
    after = claim_part(grown)
    assert after.blocks[0] == before.blocks[0] == 1
    assert claim_part(grown) == after


def test_the_claim_of_an_earlier_version_is_kept(tmp_path: Path, run_dir: Path) -> None:
    """An earlier claim names one block of the network, and its sandboxes still run."""
    mine = config(tmp_path, "a", MANY)
    run_dir.mkdir()
    (run_dir / "part-5.json").write_text(json.dumps({"data_dir": str(mine.data_dir)}))
    now = claim_part(mine)
    assert now.blocks[0] == 5
    old_addresses = list(list(WHOLE.subnets(new_prefix=20))[5])[2:]
    assert [now.address(slot) for slot in (0, 77, SLOTS - 1)] == [str(old_addresses[slot]) for slot in (0, 77, -1)]
    assert now.first_uid(77) == FIRST_UID + (5 * 4096 + 77) * UIDS
    assert now.slots >= MANY


def test_what_a_directory_has_is_known_without_a_claim(tmp_path: Path) -> None:
    assert held_part(config(tmp_path, "a")) is None
    claimed = claim_part(config(tmp_path, "a"))
    assert held_part(config(tmp_path, "a", MANY)) == claimed
    assert held_part(config(tmp_path, "b")) is None


def test_without_free_blocks_the_error_says_who_holds_them(tmp_path: Path) -> None:
    claim_part(config(tmp_path, "a", 8 * BLOCK))
    with pytest.raises(NoPart) as refused:
        claim_part(config(tmp_path, "b", MANY))
    assert str(refused.value) == (
        "Addresses for 10000 sandboxes need 3 more blocks of 4096 addresses. This host has 11 blocks and 2 are free. "
        f"Data directories hold the others: {tmp_path / 'a'} (9)"
    )


@pytest.mark.parametrize(
    ("addresses", "network", "why"),
    [
        (45_055, "10.0.0.0/8", "too large: a host has user ids for 45054 sandboxes."),
        (32_767, "10.213.0.0/17", "too large: BUNTIME_NETWORK=10.213.0.0/17 has addresses for 32766 sandboxes."),
    ],
)
def test_more_sandboxes_than_addresses_or_user_ids_are_refused(
    tmp_path: Path, addresses: int, network: str, why: str
) -> None:
    with pytest.raises(BadSetting, match=rf"^BUNTIME_SANDBOX_ADDRESSES={addresses} is {why}$"):
        claim_part(config(tmp_path, "a", addresses, network))
    assert claim_part(config(tmp_path, "a", addresses - 1, network)).slots == addresses - 1


def test_a_network_smaller_than_the_claimed_blocks_is_refused(tmp_path: Path) -> None:
    claim_part(config(tmp_path, "a", 7 * BLOCK))
    claim_part(config(tmp_path, "b"))
    with pytest.raises(NoPart, match=r"^BUNTIME_NETWORK=10\.213\.0\.0/17 is smaller "):
        claim_part(config(tmp_path, "b", network="10.213.0.0/17"))


# --- slots ---


def test_a_freed_slot_rests_before_it_is_used_again(tmp_path: Path) -> None:
    now = 0.0
    slots = Slots(SLOTS, tmp_path / "slot", clock=lambda: now)
    taken = [slots.take() for _ in range(SLOTS)]
    assert len(set(taken)) == SLOTS
    slots.free(taken[5])
    with pytest.raises(Unavailable):
        slots.take()
    now += REST_SECONDS
    assert slots.take() == taken[5]


def test_slots_in_use_at_a_start_are_not_given_out(tmp_path: Path) -> None:
    slots = Slots(SLOTS, tmp_path / "slot")
    slots.use([0, 1, 3])
    assert [slots.take(), slots.take()] == [2, 4]


def test_after_a_restart_earlier_slots_come_last(tmp_path: Path) -> None:
    before = Slots(SLOTS, tmp_path / "slot")
    used = {before.take() for _ in range(5)}
    after = Slots(SLOTS, tmp_path / "slot")
    assert not used & {after.take() for _ in range(SLOTS - 5)}
    assert after.take() in used
