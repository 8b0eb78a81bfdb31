"""The kernel ends connections for the server, whichever process holds them."""

import os
import socket
from ipaddress import ip_address

import pytest

from buntime.fleet.neighbours import Endpoint
from buntime.sandboxes.network.disconnecting import end_connections, end_connections_to

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="ending other programs' connections is root's"),
]

ADDRESS = "127.98.100.105"  # used by no other program on this machine


def connected(address: str, port: int = 0) -> tuple[socket.socket, socket.socket]:
    with socket.create_server((address, port)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        served, _ = listener.accept()
    return client, served


def test_open_connections_to_an_address_end_on_both_sides() -> None:
    client, served = connected(ADDRESS)
    with client, served:
        assert end_connections(ADDRESS) == 1
        with pytest.raises(ConnectionError):
            client.recv(1)
        with pytest.raises(ConnectionError):
            served.recv(1)
    assert end_connections(ADDRESS) == 0


@pytest.mark.parametrize(("address", "port"), [("127.98.100.106", 0), (ADDRESS, 1)])
def test_connections_to_other_addresses_and_to_the_guests_ports_stay(address: str, port: int) -> None:
    client, served = connected(address, port)
    with client, served:
        assert end_connections(ADDRESS) == 0
        client.send(b"on")
        assert served.recv(2) == b"on"


@pytest.mark.parametrize("address", [ADDRESS, "::1"])
def test_connections_to_the_listener_of_a_host_end_and_no_others(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_server((address, 0), family=family) as beside,
    ):
        clients = [socket.create_connection(each.getsockname()[:2], timeout=5) for each in (listener, beside)]
        other, _ = beside.accept()
        host = Endpoint(ip_address(address), listener.getsockname()[1])
        with clients[0], clients[1], other:
            assert end_connections_to(host) == 1
            with pytest.raises(ConnectionError):
                clients[0].recv(1)
            clients[1].send(b"on")
            assert other.recv(2) == b"on"
        assert end_connections_to(host) == 0
