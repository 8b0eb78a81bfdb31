"""Sends and captures packets on the host's side of a session's network."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ALL_PROTOCOLS = 0x0003
IP_BEGIN = 14  # after the Ethernet header
SEEN_SECONDS = 10.0  # a guard against a hang


@contextmanager
def passing(interface: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as tap:
        tap.bind((interface, 0))
        tap.settimeout(SEEN_SECONDS)
        yield tap


def answers_until(tap: socket.socket, last: int) -> list[int]:
    """Returns the ids of the name server's answers that pass, up to the id `last`."""
    seen: list[int] = []
    while last not in seen:
        packet = tap.recv(2048)
        if packet[IP_BEGIN + 9] == socket.IPPROTO_UDP and packet[IP_BEGIN + 20 : IP_BEGIN + 22] == b"\0\x35":
            seen.append(struct.unpack_from("!H", packet, IP_BEGIN + 28)[0])
    return seen


def ask(init: int, source: str, server: str, number: int) -> None:
    """Sends a DNS query with this source address and id from the network namespace of a process."""
    subprocess.run(
        ["nsenter", "--net", "--target", str(init), sys.executable, "-c", _SEND, source, server, str(number)],
        check=True,
        timeout=60,
    )


_SEND = """
import socket, struct, sys
source, server, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
question = struct.pack("!6H", number, 256, 1, 0, 0, 0) + b"\\4name\\0" + struct.pack("!2H", 1, 1)
udp = struct.pack("!4H", 5353, 53, 8 + len(question), 0) + question
ends = socket.inet_aton(source) + socket.inet_aton(server)
header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    raw.sendto(header + udp, (server, 0))
"""
