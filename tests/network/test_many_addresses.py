"""Addresses of 10,000 sandboxes in the kernel's rules and routes. Only a few sandboxes have a network."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Network

import pytest

from buntime.egress import Rules, rules_of
from buntime.sandboxes.kernel.host import BLOCK, Part
from buntime.sandboxes.network.namespaces import Network
from buntime.session import Network as Wanted
from tests.network.place import PUBLIC, World, enter_handle, nft, probe, world
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PART = Part("tmny", IPv4Network("10.251.0.0/16"), (5, 1, 3))
MANY = 10_000
FREE, CLOSED, LATER = BLOCK + 17, 2 * BLOCK + 17, MANY - 1  # slots of the second block and of the third
NONE: Rules = rules_of(Wanted("none", (), ()))


@pytest.fixture(scope="module")
def outside() -> Iterator[World]:
    with world() as there:
        yield there


@pytest.fixture(scope="module")
def network(outside: World) -> Iterator[Network]:
    """Makes a network in which all sandboxes except two may reach nothing."""
    with ExitStack() as stack:
        network = Network(PART)
        stack.callback(network.remove)
        stack.callback(network.close)
        network.open({slot: NONE for slot in range(MANY) if slot not in (FREE, LATER)})
        yield network


def _closed(network: Network) -> int:
    (listed,) = (
        e["set"] for e in json.loads(nft("-j", "list", "set", "inet", network.table, "no_egress"))["nftables"][1:]
    )
    return len(listed["elem"])


def _reaches(network: Network, slot: int) -> bool:
    namespace = network.make(slot)
    try:
        target = f"tcp:{PUBLIC[0]}:80"
        return probe(enter_handle(namespace.handle), [target]) == {target: "open"}
    finally:
        namespace.close()


def test_rules_of_every_sandbox_are_in_force(network: Network) -> None:
    assert _closed(network) == MANY - 2
    until(lambda: _reaches(network, FREE), "the sandbox to reach the world")
    assert not _reaches(network, CLOSED)


def test_rules_of_one_of_them_can_change(network: Network) -> None:
    until(lambda: _reaches(network, LATER), "the sandbox to reach the world")
    network.restrict(LATER, NONE)
    assert not _reaches(network, LATER)
    network.forget(LATER)
    until(lambda: _reaches(network, LATER), "the sandbox to reach the world")
    assert _closed(network) == MANY - 2


def test_the_session_of_an_address_is_found_in_every_block(network: Network) -> None:
    for slot in (0, BLOCK - 3, BLOCK - 2, FREE, CLOSED, LATER):
        found = network.rules_at(PART.address(slot))
        assert found is not None
        assert found[0] == slot
    assert network.rules_at("10.251.96.9") is None
    assert network.rules_at(PART.gateway) is None


def test_activity_is_seen_in_every_block(network: Network) -> None:
    network.touched()
    slots = {0, BLOCK - 2, FREE, CLOSED, LATER}
    for slot in slots:
        nft("add", "element", "inet", network.table, "touched", f"{{ {PART.address(slot)} }}")
    assert network.touched() == slots


def test_a_sandbox_adds_nothing_to_the_hosts_ipv6(network: Network) -> None:
    namespace = network.make(FREE)
    try:
        interface = PART.interface(FREE)
        assert "UP" in _shown("-o", "link", "show", "dev", interface)
        assert _shown("-6", "route", "show", "table", "all", "dev", interface) == ""
        assert _shown("-6", "address", "show", "dev", interface) == ""
    finally:
        namespace.close()


def _shown(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def test_addresses_without_a_sandbox_lead_nowhere(network: Network) -> None:
    for slot in (7, BLOCK + 7, 2 * BLOCK + 7):
        asked = subprocess.run(["ip", "route", "get", PART.address(slot)], capture_output=True, text=True, check=False)
        assert asked.returncode, asked.stdout


def test_nothing_of_it_is_left_behind(outside: World) -> None:
    network = Network(PART)
    network.open({})
    network.close()
    network.remove()
    shown = subprocess.run(["ip", "route", "show"], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r".*10\.251\.(?:80|16|48)\..*", shown)
    assert network.table not in nft("list", "tables")
