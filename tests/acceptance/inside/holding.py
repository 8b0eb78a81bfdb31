"""Runs in a session: holding.py WAY SECONDS – fills the buffers of loopback connections as far as the kernel allows.

accepted: accepts the connections and never reads
late: fills the connections first, then accepts them
queued: never accepts the connections
reset: as queued, but clients reset their connections, so that their buffers do not count for the session
tiny: as reset, with one byte per packet, each of which costs the kernel hundreds of bytes
"""

import resource
import socket
import struct
import sys
import time

way, seconds = sys.argv[1], float(sys.argv[2])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
LARGEST, AT_ONCE = 4 << 20, 64
chunk = bytes(1 if way == "tiny" else 1 << 16)
kept: list[socket.socket] = []
end = time.monotonic() + seconds


def fill(ends: list[socket.socket]) -> None:
    """Sends until all sockets have been full for a moment, since the kernel grows buffers gradually."""
    last = time.monotonic()
    while time.monotonic() < min(end, last + 0.1):
        for each in ends:
            try:
                for _ in range(256):
                    each.send(chunk)
                    last = time.monotonic()
            except OSError:
                continue


def sized() -> socket.socket:
    made = socket.socket()
    if way in ("queued", "reset", "tiny"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGEST)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LARGEST)
    return made


while time.monotonic() < end:
    try:
        listener = sized()
        listener.bind(("127.0.0.1", 0))
        listener.listen(AT_ONCE)
        kept.append(listener)
        clients, servers = [], []
        for _ in range(AT_ONCE):
            client = socket.socket()
            client.settimeout(1.0)
            client.connect(listener.getsockname())
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clients.append(client)
            if way == "accepted":
                servers.append(listener.accept()[0])
                servers[-1].setblocking(False)
        fill(clients + servers)
        if way == "late":
            servers = [listener.accept()[0] for _ in clients]
            for server in servers:
                server.send(b"accepted")
        if way in ("reset", "tiny"):
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
        else:
            kept += clients + servers
    except OSError:
        time.sleep(0.05)  # the kernel takes no more right now
time.sleep(600)
