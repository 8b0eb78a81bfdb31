"""Runs in a session: takes_all.py KIND [MOST] – takes as many kernel objects of a kind as it can, and prints how many.

Keeps them for a minute. If it gets MOST objects, it ends at once instead.
"""

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
IO_SETUP = 206 if os.uname().machine == "x86_64" else 0
RT_SIGNAL = 40
SIGEV_SIGNAL = 0


class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("flags", "messages", "size", "now")] + [("pad", ctypes.c_long * 4)]


class Event(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("pad", ctypes.c_char * 64),
    ]


def signal_pending() -> int:
    return int(libc.sigqueue(os.getpid(), RT_SIGNAL, None))


def timer() -> int:
    identity = ctypes.c_void_p()
    return int(libc.timer_create(1, ctypes.byref(Event(None, RT_SIGNAL, SIGEV_SIGNAL)), ctypes.byref(identity)))


def queue() -> int:
    name = f"/q{time.monotonic_ns()}".encode()
    return int(libc.mq_open(name, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600, ctypes.byref(Attributes(0, 10, 8192, 0))))


def aio() -> int:
    return int(libc.syscall(IO_SETUP, 16, ctypes.byref(ctypes.c_void_p())))


def instance() -> int:
    return int(libc.inotify_init())


KINDS: dict[str, Callable[[], int]] = {
    "signals": signal_pending,
    "timers": timer,
    "queues": queue,
    "aio": aio,
    "inotify": instance,
}


def main() -> None:
    kind, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize
    signal.pthread_sigmask(signal.SIG_BLOCK, {RT_SIGNAL})
    taken = 0
    while taken < most and KINDS[kind]() >= 0:
        taken += 1
    print(taken, "" if taken == most else errno.errorcode[ctypes.get_errno()], flush=True)
    if taken < most:
        time.sleep(60)


main()
