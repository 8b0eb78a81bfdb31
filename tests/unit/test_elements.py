"""Elements of nftables sets, as text and as bytes."""

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest

from buntime.egress import Rules, rules_of
from buntime.sandboxes.network.elements import Element, Port, merged
from buntime.sandboxes.network.rules import LENGTHS, elements_of, version
from buntime.session import Network

ONE, TWO = IPv4Address("10.98.0.7"), IPv4Address("192.0.2.1")
SESSION = str(ONE)


@pytest.mark.parametrize(
    ("element", "text", "key"),
    [
        (Element((ONE,)), "10.98.0.7", ONE.packed),
        (Element((ONE, TWO)), "10.98.0.7 . 192.0.2.1", ONE.packed + TWO.packed),
        (Element((ONE, 0xAB)), "10.98.0.7 . 0xab", ONE.packed + struct.pack("=I", 0xAB)),
        (Element((ONE, Port(8443))), "10.98.0.7 . 8443", ONE.packed + b"\x20\xfb\0\0"),
        (Element((ONE,), value=0xFFFFFFFF), "10.98.0.7 : 0xffffffff", ONE.packed),
        (Element((ONE, TWO), seconds=65.9), "10.98.0.7 . 192.0.2.1 timeout 65s", ONE.packed + TWO.packed),
        (Element((ONE,), seconds=0.2), "10.98.0.7 timeout 1s", ONE.packed),
    ],
)
def test_an_element_has_the_text_of_nft_and_the_bytes_of_the_kernel(element: Element, text: str, key: bytes) -> None:
    assert (element.text, element.packed_key) == (text, key)


def test_rules_by_default_take_no_element() -> None:
    assert elements_of(SESSION, rules_of(Network())) == {}


def test_without_egress_one_element_is_enough() -> None:
    assert elements_of(SESSION, _rules(egress="none", allow=("192.0.2.0/24",))) == {"no_egress": [Element((ONE,))]}


def test_networks_are_kept_in_pieces_that_cover_them() -> None:
    allowed, denied = ("192.0.2.0/25", "198.51.100.7", "8.0.0.0/5"), ("0.0.0.0/0",)
    found = elements_of(SESSION, _rules(allow=allowed, deny=denied))
    for kind, networks in (("allowed", allowed), ("denied", denied)):
        pieces = [
            IPv4Network((str(element.key[1]), length))
            for length in LENGTHS
            for element in found.get(f"{kind}_{length}", [])
        ]
        assert sum(piece.num_addresses for piece in pieces) == sum(IPv4Network(n).num_addresses for n in networks)
        assert all(any(piece.subnet_of(IPv4Network(n)) for n in networks) for piece in pieces)


def test_the_version_of_rules_is_in_a_set_and_a_map() -> None:
    rules = _rules(deny=("192.0.2.0/24",))
    found, mark = elements_of(SESSION, rules), version(SESSION, rules)
    assert found["passed"] == [Element((ONE, mark))]
    assert found["versions"] == [Element((ONE,), value=mark)]


def test_elements_of_several_sessions_are_put_together() -> None:
    both = merged([{"a": [Element((ONE,))]}, {"a": [Element((TWO,))], "b": [Element((ONE, TWO))]}])
    assert both == {"a": [Element((ONE,)), Element((TWO,))], "b": [Element((ONE, TWO))]}


def _rules(egress: str = "internet", allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Rules:
    return rules_of(Network(egress, allow, deny))
