"""Runs in a session: liar.py PREFIX LIE – takes the guest's place as `impostor.py` does, and lies.

It lies about paths that begin with PREFIX. LIE is one of ANSWERS, or "errno:" and a name: then it fails with that errno
as a guest does, even for `/health`.
"""

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

PIDFD_GETFD = 438
LIBC = ctypes.CDLL(None, use_errno=True)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DEEP = b"[" * 100_000


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def json(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def failing(name: bytes) -> bytes:
    body = b'{"errno":"%s"}' % name
    return b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


OUT, ERR = frame(b"o", b"x"), frame(b"e", b"y")
ENTRY = frame(b"o", b"\0" * 6 + b"x")
FIRST = {b"/files/watch": frame(b"r", b"")}
ANSWERS = {
    "nothing": (b"", b""),
    "garbage": (b"\x00\xff" * 512, b""),
    "deep": (json(b'{"files":0,"a":' + DEEP + b"]" * 100_000 + b"}"), b""),
    "deep frames": (
        CHUNKED + chunk(frame(b"c", DEEP) + frame(b"v", DEEP) + frame(b"p", DEEP) + frame(b"x", DEEP)),
        b"",
    ),
    "half a frame": (CHUNKED + chunk(struct.pack(">cI", b"c", 8 << 20)), chunk(b"[" * 65536)),
    "crumbs": (CHUNKED, chunk((OUT + ERR) * 5000)),
    "shows": (CHUNKED, chunk(frame(b"d", b"{}") * 5000)),
    "losses": (CHUNKED, chunk(frame(b"l", b"") * 10_000)),
    "entries": (CHUNKED, chunk(ENTRY * 5000)),
}


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


def answer(connection: socket.socket, where: bytes, how: str) -> None:
    try:
        while request := connection.recv(65536):
            path = request.split(b" ", 2)[1].split(b"?")[0]
            if how.startswith("errno:") and path.startswith(where):
                connection.sendall(failing(how.removeprefix("errno:").encode()))
                continue
            if path == b"/health" or not path.startswith(where):
                connection.sendall(
                    json({b"/health": b'{"protocol":1}', b"/uploads": b'{"upload":"x"}'}.get(path, b"{}"))
                )
                continue
            first, then = ANSWERS[how]
            if how in ("deep frames", "half a frame", "losses") and path in FIRST:
                first = CHUNKED + chunk(FIRST[path]) + first.removeprefix(CHUNKED)
            connection.sendall(first)
            while then:
                connection.sendall(then)
    except OSError:
        connection.close()


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
    arguments = (connection, sys.argv[1].encode(), sys.argv[2])
    threading.Thread(target=answer, args=arguments, daemon=True).start()
