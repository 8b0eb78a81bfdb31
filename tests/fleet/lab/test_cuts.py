"""What a host is cut off from, by the rules that the bridge gets."""

import pytest

from tests.fleet.lab.cuts import Cut, Peer, Way, rules
from tests.fleet.lab.places import DATABASE_PORT, Place

PLACE = Place(2)


def drops(*cuts: Cut) -> list[str]:
    return [line.strip() for line in rules(PLACE, cuts).splitlines() if line.endswith("drop")]


def test_no_cut_drops_nothing() -> None:
    assert drops() == []


@pytest.mark.parametrize(("peer", "port"), [(Peer.DATABASE, DATABASE_PORT), (Peer.ARCHIVE, PLACE.archive_port)])
def test_a_service_is_cut_off_both_ways_or_one_way(peer: Peer, port: int) -> None:
    sent = f'iifname "buntimefl2p1" ip daddr 10.214.2.1 tcp dport {port} drop'
    got = f'oifname "buntimefl2p1" ip saddr 10.214.2.1 tcp sport {port} drop'
    assert drops(Cut(1, peer)) == [sent, got]
    assert drops(Cut(1, peer, Way.OUT)) == [sent]
    assert drops(Cut(1, peer, Way.IN)) == [got]


def test_the_other_hosts_are_cut_off_and_the_services_are_not() -> None:
    (sent,) = drops(Cut(1, Peer.HOSTS, Way.OUT))
    assert "10.214.2.12," in sent
    assert "10.214.2.11," not in sent
    assert "10.214.2.1," not in sent


def test_a_host_can_lose_every_packet() -> None:
    assert drops(Cut(3, Peer.ALL)) == ['iifname "buntimefl2p3" drop', 'oifname "buntimefl2p3" drop']
