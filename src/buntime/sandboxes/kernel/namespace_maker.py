"""The helper that makes user namespaces. Run as a program; it imports nothing of buntime, so it starts at once.

A process with threads cannot enter a user namespace, and each start of a process from the server copies and closes
the server's thousands of open files. This one has few files and little memory, and forks for each namespace.

It serves one connection, on its standard input. A request is `UID IDS`: the host's user who makes the namespace, and
the lines of its id map. The answer is a zero byte with a descriptor of the namespace, or a text that says what failed.
It ends with the connection, so with the server. A Ctrl-C in the server's terminal is not for it.
"""

import ctypes
import os
import signal
import socket
import struct
from contextlib import suppress

LARGEST = 4096  # bytes of a request, and of an answer
DONE = b"\0"
PR_SET_KEEPCAPS = 8
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITIES_V3 = 0x20080522
CAP_SYS_ADMIN = 1 << 21

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=0) as server:
        while request := server.recv(LARGEST):
            uid, _, ids = request.decode().partition(" ")
            try:
                namespace = made(int(uid), ids)
            except OSError as failed:
                server.send(str(failed).encode() or b"it failed")
                continue
            socket.send_fds(server, [DONE], [namespace])
            os.close(namespace)


def made(uid: int, ids: str) -> int:
    """The new namespace, as a file descriptor. Raises OSError."""
    pipes: list[int] = []
    try:
        for _ in range(2):
            pipes += os.pipe()
        told, tell, stay, leave = pipes
        child = os.fork()
        if child == 0:
            os.close(leave)
            _be_in_new_namespace(uid, tell, stay)
        pipes = [told, leave]
        os.close(tell)
        os.close(stay)
        try:
            return _mapped(child, told, ids)
        finally:
            pipes = [told]
            os.close(leave)
            os.waitpid(child, 0)
    finally:
        for end in pipes:
            os.close(end)


def _mapped(child: int, told: int, ids: str) -> int:
    answer = os.read(told, LARGEST)
    if answer != DONE:
        raise OSError(answer.decode() or "it was killed")
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(ids)
    return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _be_in_new_namespace(uid: int, tell: int, stay: int) -> None:
    """In the child. Ends when `stay` is closed at the other end."""
    try:
        if uid != os.getuid():
            _become(uid)
        os.unshare(os.CLONE_NEWUSER)
        os.write(tell, DONE)
        os.read(stay, 1)
    except BaseException as failed:  # noqa: BLE001 - the child must not go on as the helper
        with suppress(OSError):
            os.write(tell, str(failed).encode() or b"it failed")
    finally:
        os._exit(0)


def _become(uid: int) -> None:
    """Some hosts let only privileged users make user namespaces. So one capability stays."""
    _require(LIBC.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = struct.pack("<Ii", CAPABILITIES_V3, 0)
    low, high = (CAP_SYS_ADMIN, CAP_SYS_ADMIN, 0), (0, 0, 0)  # effective, permitted, inheritable
    _require(LIBC.syscall(SYS_CAPSET[os.uname().machine], header, struct.pack("<6I", *low, *high)))


def _require(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main()
