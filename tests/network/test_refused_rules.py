"""Rules that the kernel did not take at first. Only the server's network code runs."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from buntime.egress import rules_of
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network import namespaces
from buntime.sandboxes.network.namespaces import DEFAULT_RULES, Network
from buntime.sandboxes.network.put import put_elements
from buntime.session import Network as Wanted
from tests.network.place import nft

pytestmark = pytest.mark.sandbox

PART = Part("tref", IPv4Network("10.251.160.0/20"), (0,))  # outside BUNTIME_NETWORK, so that no server uses it
ONE, TWO = 0, 1  # slots
NONE, SOME = rules_of(Wanted("none")), rules_of(Wanted(allow=("192.0.2.0/24",)))


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(PART)
    try:
        network.open({})
        yield network
    finally:
        network.close()
        network.remove()


def _slots(network: Network, name: str) -> list[int]:
    """Returns the slots whose addresses are in the kernel's set."""
    (found,) = [e["set"] for e in json.loads(nft("-j", "list", "set", "inet", network.table, name))["nftables"][1:]]
    return [slot for slot in (ONE, TWO) if PART.address(slot) in found.get("elem", [])]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The kernel takes nothing until the test undoes this. The table stays."""

    def refuse(*given: object) -> None:
        raise OSError(105, "No buffer space available")

    def fail(*given: object) -> None:
        raise HostCommandFailed("nft: timed out")

    with monkeypatch.context() as patched:
        patched.setattr(namespaces, "put_elements", refuse)
        patched.setattr(namespaces, "call", fail)
        yield patched


def test_rules_that_were_refused_are_put_by_the_next_call_and_by_the_next_look(
    network: Network, refusing: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for slot in (ONE, TWO):
            with pytest.raises(HostCommandFailed):
                network.restrict(slot, NONE)
        with pytest.raises(HostCommandFailed):
            network.ensure()
    assert _slots(network, "no_egress") == []
    refusing.undo()
    assert network.restrict(ONE, NONE)
    assert ONE in _slots(network, "no_egress")
    assert network.ensure()
    assert _slots(network, "no_egress") == [ONE, TWO]


@pytest.mark.parametrize("way", ["back", "forget"])
def test_rules_that_were_put_and_seemed_refused_are_taken_out(
    network: Network, refusing: pytest.MonkeyPatch, way: str
) -> None:
    refusing.undo()
    network.restrict(TWO, SOME)

    def unknown(*given: object) -> None:
        put_elements(*given)  # type: ignore[arg-type]
        raise OSError(110, "Connection timed out")

    def fail(*given: object) -> None:
        raise HostCommandFailed("nft: timed out")

    refusing.setattr(namespaces, "put_elements", unknown)
    refusing.setattr(namespaces, "call", fail)
    with pytest.raises(HostCommandFailed):
        network.restrict(ONE, NONE)
    assert _slots(network, "no_egress") == [ONE]
    refusing.undo()
    if way == "back":
        network.restrict(ONE, DEFAULT_RULES)
    else:
        network.forget(ONE)
    assert _slots(network, "no_egress") == []
    assert _slots(network, "restricted") == [TWO]


def test_rules_of_a_sandbox_that_has_ended_do_not_reach_the_next_one_at_its_address(network: Network) -> None:
    network.restrict(ONE, SOME)
    network.forget(ONE)
    assert not network.restrict(ONE, NONE, lambda: False)
    assert (network.restricted(), _slots(network, "no_egress")) == ([], [])
