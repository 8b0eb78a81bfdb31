"""The meaning of a session's network rules: valid entries, and the names that they cover."""

from ipaddress import IPv4Network

import pytest

from buntime.egress import parse_entry, rules_of
from buntime.session import Network


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("192.0.2.0/24", IPv4Network("192.0.2.0/24")),
        ("192.0.2.7", IPv4Network("192.0.2.7/32")),
        ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
        ("Example.COM", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("_dmarc.xn--bcher-kva.example", "_dmarc.xn--bcher-kva.example"),
        ("a-b.c", "a-b.c"),
        ("com", "com"),
        (".".join(["a" * 61] * 4), ".".join(["a" * 61] * 4)),
    ],
)
def test_an_entry_is_a_network_or_a_name(text: str, entry: IPv4Network | str) -> None:
    assert parse_entry(text) == entry


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "*", "*.", "*.*.example.com", "a.*.example.com", "example.com.", ".example.com", "exa mple.com",
        "-a.example", "a-.example", "bücher.example", "http://example.com", "example.com/", "example.com:80", "a..b",
        "a" * 64 + ".example", ".".join(["a" * 62] * 5), "example.com\n", "1.2.3.4.5", "256.1.1.1", "1.2.3",
        "1.2.3.4/33", "192.0.2.1/24", "192.0.2.0/255.255.255.0/8", "/8", "::1", "2001:db8::/32", "*example.com",
    ],
)  # fmt: skip
def test_an_entry_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|xn--"):
        parse_entry(text)


@pytest.mark.parametrize(
    ("allow", "deny", "resolved", "unresolved"),
    [
        ([], [], ["example.com", "a"], []),
        (["example.com"], [], ["example.com"], ["www.example.com", "com", "example.org", "notexample.com", ""]),
        (["*.example.com"], [], ["a.example.com", "a.b.example.com"], ["example.com", "notexample.com", "com"]),
        (["192.0.2.0/24"], [], [], ["example.com"]),
        ([], ["example.com"], ["www.example.com", "example.org"], ["example.com"]),
        ([], ["*.com"], ["com", "example.org"], ["example.com", "a.b.com"]),
        (["*.example.com"], ["*.a.example.com"], ["b.example.com", "a.example.com"], ["b.a.example.com"]),
    ],
)
def test_a_name_is_resolved_when_it_is_allowed_and_not_denied(
    allow: list[str], deny: list[str], resolved: list[str], unresolved: list[str]
) -> None:
    rules = rules_of(Network(allow=tuple(allow), deny=tuple(deny)))
    assert [name for name in resolved if not rules.resolves(name)] == []
    assert [name for name in unresolved if rules.resolves(name)] == []


@pytest.mark.parametrize(
    ("network", "of_names", "of_addresses"),
    [
        (Network(), False, False),
        (Network("none", ("example.com",), ("192.0.2.0/24",)), False, False),
        (Network(deny=("192.0.2.0/24",)), False, True),
        (Network(deny=("example.com",)), True, True),
        (Network(allow=("192.0.2.0/24",)), True, True),
    ],
)
def test_only_networks_with_rules_are_restricted(network: Network, of_names: bool, of_addresses: bool) -> None:
    rules = rules_of(network)
    assert (rules.of_names, rules.of_addresses) == (of_names, of_addresses)


def test_addresses_that_overlap_are_one() -> None:
    rules = rules_of(Network(allow=("192.0.2.0/25", "192.0.2.128/25", "192.0.2.7", "198.51.100.1", "198.51.100.1")))
    assert rules.allow.addresses == (IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.1/32"))
