"""The limit on connections of one source to the edge. The kernel enforces it, so a plain socket replaces the edge."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Network, ip_network

import pytest

from buntime.daemon.listening import Listening
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.edge_rules import CONNECTIONS_OF_SOURCE
from buntime.sandboxes.network.namespaces import Network
from tests.network.accepting import accepting
from tests.network.place import SECONDS, nft
from tests.network.stranger import ADDRESSES, ADDRESSES6, HOST, HOST6, Connections, Stranger, connections, stranger

pytestmark = pytest.mark.sandbox

PART = Part("tedg", IPv4Network("10.251.192.0/20"), (0,))
# Sends datagrams, each from a port of its own.
SENDING = """
import socket, sys
kind, source, to, port, count = sys.argv[1:]
for _ in range(int(count)):
    with socket.socket(getattr(socket, kind), socket.SOCK_DGRAM) as one:
        one.bind((source, 0))
        one.sendto(b"x", (to, int(port)))
"""


@pytest.fixture(scope="module")
def there() -> Iterator[Stranger]:
    with stranger() as made:
        yield made


@contextmanager
def _edge(*proxies: str, addresses: tuple[str, ...] = ("0.0.0.0", "::")) -> Iterator[int]:
    """Loads the rules for a port that accepts every connection. Yields the port."""
    with ExitStack() as stack:
        port = stack.enter_context(accepting(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        network = Network(PART)
        stack.callback(network.remove)
        stack.callback(network.close)
        network.open({}, Listening(addresses, port, tuple(ip_network(proxy) for proxy in proxies)))
        yield port


def _until(holds: Connections, accepted: list[int]) -> None:
    """Waits until one more connection has this result. The kernel may need a moment to see that another has ended."""
    deadline = time.monotonic() + SECONDS
    while (found := holds.ask("open 1")) != accepted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("source", "same", "other", "to"),
    [
        (ADDRESSES[0], ADDRESSES[0], ADDRESSES[1], HOST),
        (ADDRESSES6[0], ADDRESSES6[1], ADDRESSES6[2], HOST6),
    ],
    ids=["an IPv4 address", "an IPv6 /64"],
)
def test_each_source_has_its_own_limit_on_connections(
    there: Stranger, source: str, same: str, other: str, to: str
) -> None:
    with (
        _edge() as port,
        connections(there.enter(), source, to, port) as holder,
        connections(there.enter(), same, to, port) as of_the_same,
        connections(there.enter(), other, to, port) as of_another,
    ):
        assert holder.ask(f"open {CONNECTIONS_OF_SOURCE}") == [CONNECTIONS_OF_SOURCE, 0]
        assert of_the_same.ask("open 1") == [0, 1]
        assert of_another.ask("open 1") == [1, 0]
        holder.ask("close 1")
        _until(of_the_same, [1, 0])
        assert holder.ask("open 1") == [0, 1]


def test_connections_over_the_loopback_are_counted_too(there: Stranger) -> None:
    with _edge() as port, connections([], "127.0.0.1", "127.0.0.1", port) as holder:
        assert holder.ask(f"open {CONNECTIONS_OF_SOURCE + 10}") == [CONNECTIONS_OF_SOURCE, 10]


def test_a_trusted_proxy_has_no_limit(there: Stranger) -> None:
    with (
        _edge(f"{ADDRESSES[0]}/32", "2001:db8:197:a::/64") as port,
        connections(there.enter(), ADDRESSES[0], HOST, port) as proxy,
        connections(there.enter(), ADDRESSES[1], HOST, port) as stranger_to_it,
        connections(there.enter(), ADDRESSES6[0], HOST6, port) as proxy6,
    ):
        assert proxy.ask("open 1000") == [1000, 0]
        assert proxy6.ask("open 1000") == [1000, 0]
        assert stranger_to_it.ask("open 300") == [CONNECTIONS_OF_SOURCE, 300 - CONNECTIONS_OF_SOURCE]


def test_other_ports_and_other_addresses_of_the_host_are_not_counted(there: Stranger) -> None:
    with (
        _edge(addresses=("127.0.0.1", "::1")) as port,
        connections(there.enter(), ADDRESSES[0], HOST, port) as other_address,
        accepting((HOST, 0)) as another,
        connections(there.enter(), ADDRESSES[0], HOST, another) as other_port,
    ):
        assert other_address.ask("open 300") == [300, 0]
        assert other_port.ask("open 300") == [300, 0]


@pytest.mark.parametrize(
    ("kind", "source", "to"), [("AF_INET", ADDRESSES[0], HOST), ("AF_INET6", ADDRESSES6[0], HOST6)]
)
def test_datagrams_are_not_counted(there: Stranger, kind: str, source: str, to: str) -> None:
    """Else the host would lose answers to its own questions, such as those of its name servers."""
    with _edge(), socket.socket(getattr(socket, kind), socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listener.setblocking(False)
        listener.bind((to, 0))
        sent = CONNECTIONS_OF_SOURCE + 50
        sender = [sys.executable, "-c", SENDING, kind, source, to, str(listener.getsockname()[1]), str(sent)]
        subprocess.run([*there.enter(), *sender], check=True, timeout=SECONDS)
        assert len(list(_received(listener))) == sent


def _received(listener: socket.socket) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield listener.recv(1)


def test_a_source_is_forgotten_when_its_connections_have_ended(there: Stranger) -> None:
    with _edge() as port, connections(there.enter(), ADDRESSES[0], HOST, port) as holder:
        holder.ask("open 10")
        assert ADDRESSES[0] in _sources()
        holder.ask("close 10")
        deadline = time.monotonic() + SECONDS
        while ADDRESSES[0] in _sources():
            assert time.monotonic() < deadline, "the source is never forgotten"
            time.sleep(0.2)


def _sources() -> str:
    return nft("list", "set", "inet", f"buntime_{PART.instance}", "edge_sources")
