"""Reads sets of a real nftables table."""

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from buntime.sandboxes.network.nfnetlink import Connection
from buntime.sandboxes.network.read_table import expiring_addresses

pytestmark = pytest.mark.sandbox

TABLE = "buntime_test_sets"
MANY = [IPv4Address("10.9.0.0") + number for number in range(3000)]  # more than one message holds


@pytest.fixture
def table() -> Iterator[str]:
    _nft(f"table inet {TABLE} {{\n set seen {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65535; }}\n}}")
    yield TABLE
    _nft(f"delete table inet {TABLE}")


def test_an_empty_set_has_no_elements(table: str) -> None:
    assert _expiring(table, "seen") == {}


def test_each_element_comes_with_the_time_it_has_left(table: str) -> None:
    _nft(f"add element inet {table} seen {{ 10.9.0.1 expires 5s, 10.9.0.2 }}")
    left = _expiring(table, "seen")
    assert left.keys() == {IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")}
    assert 0 < left[IPv4Address("10.9.0.1")] <= 5 < left[IPv4Address("10.9.0.2")] <= 60


def test_a_large_set_is_read_completely(table: str) -> None:
    _nft(f"add element inet {table} seen {{ {', '.join(map(str, MANY))} }}")
    assert _expiring(table, "seen").keys() == set(MANY)


@pytest.mark.parametrize("names", [(TABLE, "others"), ("buntime_test_none", "seen")])
@pytest.mark.usefixtures("table")
def test_a_missing_table_or_set_is_an_error(names: tuple[str, str]) -> None:
    with pytest.raises(FileNotFoundError):
        _expiring(*names)


def _expiring(table: str, name: str) -> dict[IPv4Address, float]:
    with Connection() as tables:
        return expiring_addresses(tables, table, name)


def _nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
