"""Which host counts an account's small keys."""

from collections import Counter
from random import Random

from buntime.fleet.homes import Homes
from buntime.ports import Peer

ACCOUNTS = [f"acc_{number:016}" for number in range(1000)]
HOSTS = [Peer(f"hst_{number:018}", f"10.0.0.{number}:8443") for number in range(5)]


def homes_of(me: Peer, hosts: list[Peer]) -> dict[str, str]:
    homes = Homes(me.id)
    homes.see(hosts)
    return {account: (homes.of(account) or me).id for account in ACCOUNTS}


def test_all_hosts_agree_whatever_the_order_in_which_they_see_each_other() -> None:
    first = homes_of(HOSTS[0], HOSTS)
    for me in HOSTS:
        assert homes_of(me, Random(me.id).sample(HOSTS, len(HOSTS))) == first
    assert min(Counter(first.values()).values()) > len(ACCOUNTS) / len(HOSTS) / 2


def test_only_accounts_of_a_lost_host_move() -> None:
    before, after = homes_of(HOSTS[0], HOSTS), homes_of(HOSTS[0], HOSTS[:-1])
    moved = {account for account in ACCOUNTS if before[account] != after[account]}
    assert moved == {account for account in ACCOUNTS if before[account] == HOSTS[-1].id}


def test_a_host_that_sees_nobody_counts_by_itself() -> None:
    homes = Homes(HOSTS[0].id)
    assert homes.of(ACCOUNTS[0]) is None
    assert homes.number == 1
    homes.see([])
    assert homes.of(ACCOUNTS[0]) is None
    homes.see(HOSTS[1:3])
    assert homes.number == 3


def test_a_host_with_a_new_address_is_asked_there() -> None:
    homes = Homes(HOSTS[0].id)
    homes.see(HOSTS)
    account = next(each for each in ACCOUNTS if homes.of(each) == HOSTS[1])
    moved = Peer(HOSTS[1].id, "10.9.9.9:8443")
    homes.see([HOSTS[0], moved, *HOSTS[2:]])
    assert homes.of(account) == moved
