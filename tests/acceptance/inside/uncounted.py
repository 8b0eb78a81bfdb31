"""Runs in a session: uncounted.py WAY COUNT – takes and keeps COUNT kernel objects that no cgroup counts.

answers: netlink sockets with unread answers
events: locks on an eventfd, which shares its inode with all eventfds of the host
file: locks on a file
departed: as file, but a process that shares the file descriptors takes the locks and ends
left: one lock each on COUNT eventfds, taken by processes that inherited them and end
"""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import time

way, count = sys.argv[1], int(sys.argv[2])  # for `left`, at most the limit of open files
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
RTM_GETLINK, NLM_F_REQUEST, NLM_F_DUMP = 18, 1, 0x300
CLONE_FILES = 0x400
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
QUESTION = struct.pack("=IHHII", 32, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + bytes(16)
kept: list[socket.socket] = []


def ask() -> None:
    each = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    each.send(QUESTION)
    kept.append(each)


def lock(file: int, number: int) -> None:
    """Locks bytes from the last to the first, since the kernel walks through all locks before a new one."""
    for place in reversed(range(number)):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place * 2)


def lock_and_leave(file: int, number: int) -> None:
    child = ctypes.CDLL(None, use_errno=True).syscall(CLONE, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
    if child < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    if child == 0:
        lock(file, number)
        os._exit(0)
    os.waitpid(child, 0)


print("begun", flush=True)
if way == "answers":
    for _ in range(count):
        ask()
elif way == "events":
    lock(os.eventfd(0), count)
elif way == "file":
    lock(os.open("/tmp/locked", os.O_CREAT | os.O_RDWR), count)
elif way == "departed":
    lock_and_leave(os.open("/tmp/locked", os.O_CREAT | os.O_RDWR), count)
elif way == "left":
    shared = [os.eventfd(0) for _ in range(count)]
    for first in range(0, count, 1000):  # a single process takes few
        if (taker := os.fork()) == 0:
            for each in shared[first : first + 1000]:
                fcntl.flock(each, fcntl.LOCK_SH)
            os._exit(0)
        os.waitpid(taker, 0)
print("took all", flush=True)
time.sleep(600)
