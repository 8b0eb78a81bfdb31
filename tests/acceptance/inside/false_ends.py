"""Runs in a session: false_ends.py ID LIE – takes the guest's place, and tells of ends of processes that are none.

It speaks the link of guest/PROTOCOL.md, because the server hears of ends on nothing else. ID: of a process of another
session. LIE: `others` tells of that one and of made-up ones without end, `garbage` of nothing that can be read.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

PIDFD_GETFD = 438
LIBC = ctypes.CDLL(None, use_errno=True)
HEADER = struct.Struct(">cII")
HEAD = struct.pack(">HH", 200, 0)


def guest() -> int:
    for process in Path("/proc").glob("[0-9]*"):
        if (process / "cmdline").read_bytes().startswith(b"/run/guest/ld.so"):
            return int(process.name)
    raise SystemExit("no guest")


def sockets(pid: int) -> list[socket.socket]:
    """Returns copies of a process's open sockets."""
    process, found = os.pidfd_open(pid), []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        mine = LIBC.syscall(PIDFD_GETFD, process, int(file.name), 0)
        if mine >= 0 and str(Path(f"/proc/self/fd/{mine}").readlink()).startswith("socket:"):
            found.append(socket.socket(fileno=mine))
    return [one for one in found if one.family != socket.AF_UNIX]


def packed(kind: bytes, number: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def lies(other: str, how: str) -> bytes:
    if how == "garbage":
        payload = b"[" * 1000
    else:
        ids = [other, *(f"proc_{number:018}" for number in range(400))]
        payload = json.dumps([{"id": name, "exitCode": 0, "reason": None} for name in ids]).encode()
    return struct.pack(">cI", b"d", len(payload)) + payload


def serve(connection: socket.socket) -> None:
    reader = connection.makefile("rb")
    while header := reader.read(HEADER.size):
        kind, number, length = HEADER.unpack(header)
        payload = reader.read(length)
        if kind == b"h":
            connection.sendall(packed(b"h", 0, b'{"protocol": 2}'))
        elif kind == b"q" and b"POST /processes/ends" in payload[:40]:
            print("asked", flush=True)
            connection.sendall(packed(b"s", number, HEAD))
            for _ in range(4):
                connection.sendall(packed(b"d", number, lies(*sys.argv[1:3])))
        elif kind == b"q":
            connection.sendall(packed(b"a", number, HEAD + b"{}"))


mine = sockets(target := guest())
(listener,) = [one for one in mine if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
os.kill(target, signal.SIGSTOP)
for one in mine:
    if one is not listener:
        one.shutdown(socket.SHUT_RDWR)  # the server reconnects to the listener
while True:
    select.select([listener], [], [])
    try:
        connection = listener.accept()[0]
    except BlockingIOError:
        continue
    connection.setblocking(True)
    serve(connection)
