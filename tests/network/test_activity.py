"""Which packets on a connection into a session count as activity. Sockets and nftables are real."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest

from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.namespaces import Network
from tests.network.place import INSIDE, SECONDS, enter_handle, nft

pytestmark = pytest.mark.sandbox

PART = Part("tact", IPv4Network("10.251.176.0/20"), (0,))
PORT = 3000
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
MASK = bytes([0xA1, 0xB2, 0xC3, 0xD4])
LONGEST = bytes(range(125))


def from_client(kind: int, payload: bytes = b"") -> bytes:
    masked = bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))
    return bytes([kind, 0x80 | len(payload)]) + MASK + masked


def from_server(kind: int, payload: bytes = b"") -> bytes:
    return bytes([kind, len(payload)]) + payload


@dataclass
class Connected:
    """A connection from this host into a session."""

    network: Network
    server: "subprocess.Popen[str]"
    client: socket.socket

    def is_activity(self, segment: bytes) -> bool:
        """Tells whether a segment from the client counts as activity."""
        self._forget()
        self.client.sendall(segment)
        arrived = b""
        while len(arrived) < len(segment):
            arrived += bytes.fromhex(self._server_line())
        assert arrived == segment
        return self.network.touched() == {0}

    def answer_is_activity(self, segment: bytes) -> bool:
        """Tells whether a segment from the session counts as activity."""
        self._forget()
        assert self.server.stdin is not None
        self.server.stdin.write(segment.hex() + "\n")
        self.server.stdin.flush()
        assert self.client.recv(len(segment), socket.MSG_WAITALL) == segment
        return self.network.touched() == {0}

    def _forget(self) -> None:
        nft("flush", "set", "inet", self.network.table, "touched")
        assert self.network.touched() == set()

    def _server_line(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline()


@pytest.fixture(scope="module", params=["timestamps", "no timestamps"])
def connected(request: pytest.FixtureRequest) -> Iterator[Connected]:
    """Connects with and without TCP options, which move the start of the data."""
    with ExitStack() as stack:
        network = Network(PART)
        stack.callback(network.remove)
        stack.callback(network.close)
        network.open({})
        namespace = network.make(0)
        stack.callback(namespace.close)
        enter = enter_handle(namespace.handle)
        timestamps = "1" if request.param == "timestamps" else "0"
        subprocess.run([*enter, "sysctl", "-qw", f"net.ipv4.tcp_timestamps={timestamps}"], check=True)
        server = stack.enter_context(
            subprocess.Popen(
                [*enter, sys.executable, INSIDE / "answering.py", str(PORT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = stack.enter_context(socket.create_connection((PART.address(0), PORT), timeout=SECONDS))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Connected(network, server, client)


@pytest.mark.parametrize("payload", [b"", b"1", b"beat", LONGEST], ids=["empty", "1 byte", "4 bytes", "125 bytes"])
@pytest.mark.parametrize("kind", [PING, PONG], ids=["ping", "pong"])
def test_a_clients_ping_or_pong_is_no_activity(connected: Connected, kind: int, payload: bytes) -> None:
    assert not connected.is_activity(from_client(kind, payload))


DATA = {
    "a text frame": from_client(TEXT, b"hello"),
    "an empty text frame": from_client(TEXT),
    "a binary frame": from_client(0x82, b"hello"),
    "a close frame": from_client(CLOSE, b"\x03\xe8"),
    "a ping and a text frame": from_client(PING) + from_client(TEXT, b"hello"),
    "a text frame and a pong": from_client(TEXT, b"hello") + from_client(PONG),
    "two pings": from_client(PING) + from_client(PING),
    "a ping and a byte": from_client(PING, b"beat") + b"x",
    "a ping that is not masked": from_server(PING, b"beat"),
    "a pong that is not masked": from_server(PONG),
    "a ping that is not the last of its message": from_client(0x09, b"beat"),
    "a ping with a longer length than a ping may have": bytes([PING, 0x80 | 126, 0, 126]) + MASK + bytes(126),
    "an unknown kind of frame": from_client(0x8B, b"beat"),
    "one byte of another protocol": bytes([PING]),
    "two bytes of another protocol": bytes([PING, 0x80]),
    "a line of another protocol": bytes([PING]) + b"PNG\r\n",
    "a block of another protocol": bytes([PONG, 0x84]) + bytes(1000),
    "another protocol's bytes that would be a ping of another length": bytes([PING, 0x85]) + MASK + b"beat",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("segment", DATA.values(), ids=DATA)
def test_all_other_bytes_of_a_client_are_activity(connected: Connected, segment: bytes) -> None:
    assert connected.is_activity(segment)


@pytest.mark.parametrize("kind", [PING, PONG], ids=["ping", "pong"])
@pytest.mark.parametrize("at", [1, 2, 6, 100, 130])
def test_each_half_of_a_split_ping_or_pong_is_activity(connected: Connected, kind: int, at: int) -> None:
    frame = from_client(kind, LONGEST)
    assert connected.is_activity(frame[:at])
    assert connected.is_activity(frame[at:])


@pytest.mark.parametrize("kind", [TEXT, PING, PONG], ids=["text", "ping", "pong"])
@pytest.mark.parametrize("payload", [b"", LONGEST], ids=["empty", "125 bytes"])
def test_what_a_session_sends_is_no_activity(connected: Connected, kind: int, payload: bytes) -> None:
    assert not connected.answer_is_activity(from_server(kind, payload))
