"""Runs in a session: impostor.py ANSWER – takes the guest's place, as any program that runs as root in a session can.

It takes over the guest's listening socket and stops the guest. ANSWER is the JSON for `/status`, or `flood`: then it
sends endless interim answers to every request except `/health`.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

PIDFD_GETFD = 438
LIBC = ctypes.CDLL(None, use_errno=True)


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


def answer(connection: socket.socket, status: bytes) -> None:
    try:
        while request := connection.recv(65536):
            path = request.split(b" ", 2)[1]
            body = {b"/health": b'{"protocol":1}', b"/status": status}.get(path, b"{}")
            while status == b"flood" and path != b"/health":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except OSError:
        connection.close()


mine = sockets(target := guest())
(listener,) = [one for one in mine if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
os.kill(target, signal.SIGSTOP)
for one in mine:
    if one is not listener:
        one.shutdown(socket.SHUT_RDWR)  # the server reconnects to the listener
print("ready", flush=True)
while True:
    select.select([listener], [], [])
    try:
        connection = listener.accept()[0]
    except BlockingIOError:
        continue
    connection.setblocking(True)
    threading.Thread(target=answer, args=(connection, sys.argv[1].encode()), daemon=True).start()
