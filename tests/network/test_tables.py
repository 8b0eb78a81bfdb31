"""A session's entries in the connection tracking tables of its own network and of the host."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from buntime.sandboxes.network.host_settings import ORPHANS, host_settings
from buntime.sandboxes.network.rules import CONNECTS, CONNECTS_AT_ONCE, ENDED, ENTRIES, FLOWS
from tests.network.place import INSIDE, PUBLIC, SECONDS
from tests.network.test_bounds import PART, SLACK, Pair, pair

__all__ = ["pair"]
pytestmark = pytest.mark.sandbox

COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
OWN_ENTRIES = 64  # in a session's own network without connections from outside


@pytest.mark.parametrize(
    ("way", "address"),
    [
        ("connections", PART.address(0)),
        ("datagrams", ""),
        ("world", PUBLIC[0]),
        ("from-localhost", PUBLIC[0]),
    ],
)
def test_a_sessions_own_packets_take_no_room_in_its_table(pair: Pair, way: str, address: str) -> None:
    made = int(_inside(pair.enter[0], "entries.py", way, address, "2"))
    assert made > OWN_ENTRIES
    shown = subprocess.run([*pair.enter[0], "cat", COUNT], capture_output=True, text=True, check=True)
    assert int(shown.stdout) <= OWN_ENTRIES


def test_ended_connections_leave_the_hosts_table_soon(pair: Pair) -> None:
    with subprocess.Popen(
        [*pair.outside.enter(), sys.executable, INSIDE / "closing.py"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            end, most, made = time.monotonic() + 3 * ENDED, 0, 0
            while time.monotonic() < end:
                made += int(_inside(pair.enter[0], "opening.py", PUBLIC[0], "2"))
                most = max(most, _entries_of(PART.address(0)))
        finally:
            server.kill()
    share = (FLOWS + CONNECTS_AT_ONCE + CONNECTS * ENDED) * SLACK
    assert made > share, "otherwise the limit would not be tested"
    assert most <= share


def test_the_hosts_tables_have_room_for_all_sessions_at_their_limits(pair: Pair) -> None:
    for name, least in (
        ("net/netfilter/nf_conntrack_max", PART.slots * ENTRIES),
        ("net/ipv4/tcp_max_orphans", PART.slots * ORPHANS),
    ):
        assert int((Path("/proc/sys") / name).read_text()) >= least
        assert name in host_settings(PART.slots), "doctor must list it"


def _inside(enter: list[str], program: str, *arguments: str) -> str:
    return subprocess.run(
        [*enter, sys.executable, INSIDE / program, *arguments],
        capture_output=True, text=True, check=True, timeout=SECONDS,
    ).stdout  # fmt: skip


def _entries_of(address: str) -> int:
    return sum(f"src={address} " in line for line in Path("/proc/net/nf_conntrack").read_text().splitlines())
