"""Runs in a session: name_server.py ADDRESS flood|streams|chaos – prints how much the name server lets a session do."""

import socket
import struct
import sys
import time

SECONDS = 2.0
IN, CHAOS = 1, 3


def question(name: str, kind: int, of: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 256, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, of)


def asked_on_one_port(address: str) -> int:
    """Returns the number of answers to as many queries as possible."""
    answers, deadline = 0, time.monotonic() + SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((address, 53))
        asking.settimeout(0.0)
        while time.monotonic() < deadline:
            try:
                asking.send(question("localhost", 1, IN))
                while asking.recv(600):
                    answers += 1
            except (BlockingIOError, ConnectionRefusedError):
                continue
    return answers


def streams(address: str) -> int:
    """Returns the number of connections that can be open at the same time."""
    held = []
    for _ in range(12):
        one = socket.socket()
        one.settimeout(0.5)
        try:
            one.connect((address, 53))
        except OSError:
            break
        held.append(one)
    return len(held)


def told_of_itself(address: str) -> int:
    """Returns the number of records that describe the name server itself."""
    told = 0
    for name in ("version.bind", "servers.bind"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1.0)
            asking.sendto(question(name, 16, CHAOS), (address, 53))
            try:
                told += struct.unpack_from("!H", asking.recv(600), 6)[0]
            except OSError:
                continue
    return told


print({"flood": asked_on_one_port, "streams": streams, "chaos": told_of_itself}[sys.argv[2]](sys.argv[1]))
