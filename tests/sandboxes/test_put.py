"""Compares the netlink messages that change sets with the result of nft for the same elements."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from buntime.egress import Rules, rules_of
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.elements import Element, Elements
from buntime.sandboxes.network.nfnetlink import Connection
from buntime.sandboxes.network.put import MOST, put_elements
from buntime.sandboxes.network.read_table import elements, leads_to
from buntime.sandboxes.network.rules import elements_of, whole
from buntime.session import Network
from tests.network.place import nft
from tests.waiting import until

pytestmark = pytest.mark.sandbox

TABLE = "buntime_test_put"
PART = Part("tput", IPv4Network("10.251.0.0/16"), (11,))
ADDRESS = PART.address(0)
SESSION = IPv4Address(ADDRESS)
RULES = [
    rules_of(Network("none")),
    rules_of(Network(allow=("192.0.2.0/24", "198.51.100.0/25", "example.com"), deny=("8.0.0.0/5", "*.example.org"))),
    rules_of(Network(deny=("0.0.0.0/0",))),
    rules_of(Network(allow=tuple(f"192.31.{third}.128/25" for third in range(100)))),
]


@pytest.fixture
def tables() -> Iterator[Connection]:
    """Puts a table without elements in force."""
    with Connection() as tables:
        _load({})
        yield tables
    nft("delete", "table", "inet", TABLE)


def _load(of: Elements) -> None:
    nft(whole(TABLE, PART, None, of))


def _shown() -> str:
    return nft("-s", "list", "table", "inet", TABLE)


@pytest.mark.parametrize("rules", RULES)
def test_elements_of_rules_are_as_nft_would_put_them(tables: Connection, rules: Rules) -> None:
    empty, new = _shown(), elements_of(ADDRESS, rules)
    put_elements(tables, TABLE, {}, new)
    put = _shown()
    assert put != empty
    _load(new)
    assert _shown() == put
    put_elements(tables, TABLE, new, {})
    assert _shown() == empty


def test_a_change_takes_out_what_is_there_and_what_is_not(tables: Connection) -> None:
    old, new = elements_of(ADDRESS, RULES[1]), elements_of(ADDRESS, RULES[2])
    put_elements(tables, TABLE, old, new)
    put_elements(tables, TABLE, old, new)
    put = _shown()
    _load(new)
    assert _shown() == put


def test_more_elements_than_one_message_holds_are_put_in_one_step(tables: Connection) -> None:
    many = [Element((SESSION, SESSION + number), seconds=60) for number in range(MOST * 4 + 1)]
    put_elements(tables, TABLE, {"allowed_names": many}, {"allowed_names": many})
    keys = {element.packed_key for element in many}
    # while the kernel makes its table larger, a listing misses some
    until(lambda: dict(elements(tables, TABLE, "allowed_names")).keys() == keys, "all elements")
    found = dict(elements(tables, TABLE, "allowed_names"))
    assert all(50 < left <= 60 for left in found.values())
    put_elements(tables, TABLE, {"allowed_names": many}, {})
    assert dict(elements(tables, TABLE, "allowed_names")) == {}


def test_time_starts_again_for_an_element_that_is_put_again(tables: Connection) -> None:
    pair = (SESSION, IPv4Address("192.0.2.1"))
    for seconds in (1000, 10, 500):
        again = {"allowed_names": [Element(pair, seconds=seconds)]}
        put_elements(tables, TABLE, again, again)
        ((_, left),) = elements(tables, TABLE, "allowed_names")
        assert seconds - 5 < left <= seconds


def test_a_change_that_fails_in_part_changes_nothing(tables: Connection) -> None:
    before, one = _shown(), [Element((SESSION,))]
    with pytest.raises(FileNotFoundError):
        put_elements(tables, TABLE, {}, {"no_egress": one, "missing": one})
    assert _shown() == before
    with pytest.raises(FileNotFoundError):
        put_elements(tables, "buntime_test_none", {}, {"no_egress": one})


def test_after_a_failure_the_connection_still_works(tables: Connection) -> None:
    with pytest.raises(FileNotFoundError):
        put_elements(tables, TABLE, {}, {name: [Element((SESSION,))] for name in ("missing", "none", "no_egress")})
    put_elements(tables, TABLE, {}, {"no_egress": [Element((SESSION,))]})
    assert [key for key, _ in elements(tables, TABLE, "no_egress")] == [SESSION.packed]


def test_where_the_rules_of_a_chain_lead_is_read(tables: Connection) -> None:
    assert leads_to(tables, TABLE, "forward") == {"from_session", "to_session"}
    assert leads_to(tables, TABLE, "refused") == set()
    nft("flush", "chain", "inet", TABLE, "forward")
    assert leads_to(tables, TABLE, "forward") == set()
    assert leads_to(tables, TABLE, "missing") == set()
    assert leads_to(tables, "buntime_test_none", "forward") == set()
