"""Takes the guest's place, as any program that runs as root in a session can. The liars beside this file import it.

    python3 taking.py end      ends the guest, and with it the sandbox
    python3 taking.py stop     keeps it from running for ten minutes, or as long as this program lives

It takes over the guest's listening socket, stops the guest, and speaks the link of guest/PROTOCOL.md. It keeps to the
rules of credit, so that the server reads what it says.
"""

import ctypes
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

GUEST = 1  # its process, which the kernel protects from signals of the session
PIDFD_GETFD = 438
PTRACE_POKEUSER, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 6, 17, 0x4206, 0x4207
WALL = 0x40000000
INSTRUCTION_POINTER = 16 * 8  # in x86-64's struct user
LIBC = ctypes.CDLL(None, use_errno=True)
HEADER = struct.Struct(">cII")
WINDOW, EXTRA, LARGEST = 262_144, 256, 65_536  # bytes


class Stream:
    """One request, to be answered."""

    def __init__(self, link: "Link", number: int) -> None:
        self.link = link
        self._number = number
        self._began = False
        self.credit = WINDOW
        self.has_left = False

    def whole(self, body: bytes, status: int = 200) -> None:
        self._put(b"a", struct.pack(">HH", status, 0) + body)

    def send(self, body: bytes, piece: int = LARGEST // 2) -> None:
        """Part of an answer, in frames of `piece` bytes, as many at once as there is credit for. Raises OSError when
        nobody reads on."""
        if not self._began:
            self._began = True
            self._put(b"s", struct.pack(">HH", 200, 0))
            self.credit -= EXTRA
        at = 0
        while at < len(body):
            frames = bytearray()
            with self.link.changed:
                while self.credit < piece + EXTRA and not self.has_left:
                    self.link.changed.wait()
                while at < len(body) and self.credit >= piece + EXTRA:
                    part = body[at : at + piece]
                    at += len(part)
                    self.credit -= len(part) + EXTRA
                    frames += HEADER.pack(b"d", self._number, len(part)) + part
            if self.has_left:
                self._put(b"r", b"")
                raise ConnectionAbortedError
            self.link.put(bytes(frames))

    def end(self) -> None:
        self._put(b"e", b"")

    def _put(self, kind: bytes, payload: bytes) -> None:
        self.link.put(HEADER.pack(kind, self._number, len(payload)) + payload)


type Answer = Callable[[Stream, str], None]


class Link:
    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer
        self._streams: dict[int, Stream] = {}
        self._sending = threading.Lock()
        self.changed = threading.Condition()

    def put(self, data: bytes) -> None:
        with self._sending:
            self._connection.sendall(data)

    def run(self) -> None:
        reader = self._connection.makefile("rb")
        while header := reader.read(HEADER.size):
            kind, number, length = HEADER.unpack(header)
            payload = reader.read(length)
            if kind == b"h":
                self.put(HEADER.pack(b"h", 0, 15) + b'{"protocol": 2}')
            elif kind in (b"q", b"b"):
                size = int.from_bytes(payload[:2])
                stream = self._streams[number] = Stream(self, number)
                target = payload[2 : 2 + size].decode()
                threading.Thread(target=self._say, args=(stream, target), daemon=True).start()
            elif kind in (b"w", b"c"):
                with self.changed:
                    self._streams[number].credit += int.from_bytes(payload)
                    self._streams[number].has_left |= kind == b"c"
                    self.changed.notify_all()
        self._connection.close()

    def _say(self, stream: Stream, target: str) -> None:
        with suppress(OSError):
            self._answer(stream, target)


def trace(request: int, address: int = 0, data: int = 0) -> None:
    if LIBC.ptrace(ctypes.c_long(request), GUEST, ctypes.c_void_p(address), ctypes.c_void_p(data)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def stop_the_guest() -> None:
    """Until this thread ends."""
    trace(PTRACE_SEIZE)
    trace(PTRACE_INTERRUPT)
    os.waitpid(GUEST, WALL)


def end_the_guest() -> None:
    """Makes it go on at an address where there is nothing."""
    stop_the_guest()
    trace(PTRACE_POKEUSER, INSTRUCTION_POINTER, 0)
    trace(PTRACE_DETACH)


def sockets(pid: int) -> list[socket.socket]:
    """Returns copies of a process's open sockets."""
    process, found = os.pidfd_open(pid), []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        mine = LIBC.syscall(PIDFD_GETFD, process, int(file.name), 0)
        if mine >= 0 and str(Path(f"/proc/self/fd/{mine}").readlink()).startswith("socket:"):
            found.append(socket.socket(fileno=mine))
    return [one for one in found if one.family != socket.AF_UNIX]


def take_the_guests_place(answer: Answer) -> None:
    """For ever. Calls `answer` with each request, in a thread of its own, and its method, path and query."""
    mine = sockets(GUEST)
    (listener,) = [one for one in mine if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    stop_the_guest()
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
        threading.Thread(target=Link(connection, answer).run, daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "end":
        end_the_guest()
    else:
        stop_the_guest()
    time.sleep(600)
