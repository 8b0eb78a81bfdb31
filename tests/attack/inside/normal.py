"""Runs in session B: takes a normal amount of each kernel resource. Prints the outcome of each as JSON."""

import ctypes
import fcntl
import json
import mmap
import os
import pty
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
IO_SETUP, MQ_OPEN, MQ_UNLINK, TIMER_CREATE = (0, 180, 181, 107) if ARM else (206, 240, 241, 222)
SIGNALS, FILES, PROCESSES = 64, 1000, 16
MB = 1 << 20


def system_call(number: int, *arguments: object) -> int:
    result = int(LIBC.syscall(number, *arguments))
    return checked(result)


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def inotify() -> None:
    handle = checked(LIBC.inotify_init())
    checked(LIBC.inotify_add_watch(handle, b"/tmp", 2))


def terminal() -> None:
    pty.openpty()


def signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    for number in range(SIGNALS):
        checked(LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, number))


def queue() -> None:
    checked(system_call(MQ_OPEN, b"normal", os.O_CREAT | os.O_RDWR, 0o600, None))
    system_call(MQ_UNLINK, b"normal")


def timer() -> None:
    system_call(TIMER_CREATE, 1, None, ctypes.byref(ctypes.c_int()))


def files() -> None:
    for handle in [os.open("/dev/null", os.O_RDONLY) for _ in range(FILES)]:
        os.close(handle)


def pipe() -> None:
    _, end = os.pipe()
    os.set_blocking(end, False)
    assert os.write(end, bytes(1 << 16)) == 1 << 16


def datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(5)
        one.sendto(b"x", one.getsockname())
        assert one.recv(10) == b"x"


def connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        other = listener.accept()[0]
        for end in (one, other):
            end.settimeout(5)
        one.sendall(bytes(MB // 16))
        assert other.recv(10)
        other.close()


def name() -> None:
    """Checks that the name server answers. The content of the answer does not matter."""
    server = Path("/etc/resolv.conf").read_text().partition("nameserver ")[2].split()[0]
    question = struct.pack("!6H", 4711, 256, 1, 0, 0, 0) + b"\x04host\x07invalid\0" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        for number in range(3):  # a resolver retries, too
            one.sendto(question, (server, 53))
            try:
                assert one.recv(512)[:2] == question[:2]
                return
            except TimeoutError:
                if number == 2:
                    raise


def shared_memory() -> None:
    checked(LIBC.shmctl(checked(LIBC.shmget(0, MB, 0o1600)), 0, None))


def semaphore() -> None:
    checked(LIBC.semctl(checked(LIBC.semget(0, 1, 0o1600)), 0, 0))


def processes() -> None:
    for child in [subprocess.Popen(["sleep", "0"]) for _ in range(PROCESSES)]:
        assert child.wait() == 0


def memory() -> None:
    with mmap.mmap(-1, 32 * MB) as room:
        for page in range(0, 32 * MB, 4096):
            room[page] = 1


def file() -> None:
    with tempfile.NamedTemporaryFile(dir="/workspace") as one:
        one.write(bytes(MB))
        one.flush()
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)


ACTIONS: dict[str, Callable[[], object]] = {
    "1 inotify watch": inotify, "1 pty": terminal, f"{SIGNALS} pending signals": signals, "1 message queue": queue,
    "1 timer": timer, f"{FILES} open files": files, "1 full pipe": pipe,
    "1 UDP socket": datagram, "1 TCP connection": connection, "1 name": name, "1 MB of shared memory": shared_memory,
    "1 semaphore": semaphore, f"{PROCESSES} processes": processes, "32 MB of memory": memory,
    "a locked file of 1 MB": file,
}  # fmt: skip


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except (OSError, AssertionError, StopIteration) as failed:
        return repr(failed)
    return "ok"


if __name__ == "__main__":
    print(json.dumps({what: attempt(action) for what, action in ACTIONS.items()}))
