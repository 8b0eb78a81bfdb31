"""Pushes the anonymous pages of frozen sandboxes out to swap, one after the other.

Each line of the standard input names one by two cgroups, with a tab between them. All processes of the sandbox are in
or below the first; the second counts its memory. An empty line answers it. The end of the input ends the program.

It is a program, started from this file with the standard library alone. Only killing it makes the kernel stop, which a
thaw needs.

The processes are hostile. They may have many mappings with long names, may be killed meanwhile, and their pids may be
reused. So lines are read one by one, time is bounded, and the kernel gets pidfds of processes that were in the cgroup
after the pidfd was opened. A wrong address does no harm: the kernel refuses it, or pushes out another page of the same
process.

Pages of files stay: other sandboxes map them, and the kernel can drop them without swap. After a long call, the program
rests as long as the call took.

Compressed memory takes a page at once. A disk is slower: a page that waits for it stays in memory, and is no longer of
a process when it could go. Then the cgroup gives it up.
"""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

SECONDS = 10.0  # for one sandbox; what is left stays in memory
PROCESS_MADVISE, MADV_PAGEOUT = 440, 21  # the same on x86-64 and arm64
PIECE = 16 << 20  # bytes of addresses in one call, and so the most that it takes of the host's swap
RANGES = 512  # in one call; the kernel takes 1,024
REST_AFTER = 0.001  # seconds of one call
LEAVE = 8  # this part of the host's swap stays free for others
LITTLE = 1 << 20  # bytes that are in swap and in memory too
WRITE_SECONDS = 0.2  # for the disk, before the cgroup gives up what was written
LIBC = ctypes.CDLL(None, use_errno=True)

type Range = tuple[int, int]  # address and bytes


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _System(ctypes.Structure):
    """`struct sysinfo` of 64-bit Linux."""

    _fields_ = (
        ("others", ctypes.c_ulong * 8),
        ("swap", ctypes.c_ulong),
        ("free_swap", ctypes.c_ulong),
        ("rest", ctypes.c_ulong * 5),
    )


def page_out(processes: Path, deadline: float) -> None:
    """Pushes out what it can of the processes in the cgroup and those below it, until `time.monotonic` is there."""
    shared = _shared_memory()
    for group in processes.rglob("cgroup.procs"):
        for pid, handle in _members(group):
            try:
                with suppress(OSError), Path(f"/proc/{pid}/maps").open("rb") as lines:
                    _push(handle, pieces(anonymous(lines, shared)), lambda: time.monotonic() > deadline)
            finally:
                os.close(handle)


def give_up_written(memory: Path, deadline: float) -> None:
    """Has the cgroup give up pages that are in swap too."""
    before = sys.maxsize
    while LITTLE < (held := _written(memory)) < before and time.monotonic() < deadline:
        before = held
        time.sleep(WRITE_SECONDS)
        with suppress(OSError):  # it could take only a part
            _give_up(memory, held)


def _written(memory: Path) -> int:
    stat = dict(line.split() for line in (memory / "memory.stat").read_text().splitlines())
    return int(stat.get("total_swapcached", stat.get("swapcached", 0)))


def _give_up(memory: Path, size: int) -> None:
    if (memory / "memory.force_empty").exists():
        (memory / "memory.force_empty").write_text("0")
        return
    try:
        (memory / "memory.reclaim").write_text(f"{size} swappiness=200")  # and no pages of files
    except OSError as failed:
        if failed.errno != errno.EINVAL:  # as before Linux 6.9
            raise
        (memory / "memory.reclaim").write_text(str(size))


def anonymous(lines: Iterable[bytes], shared: bytes) -> Iterator[Range]:
    """Mappings that can have pages without a file, from lines of /proc/PID/maps. `shared`: the device of shared memory
    that has no file system, as in these lines."""
    for line in lines:
        addresses, permissions, _, device, inode, *name = line.split(None, 5)
        is_private = permissions[3:4] == b"p"
        if not (inode == b"0" or b"w" in permissions if is_private else device == shared):
            continue
        if name and name[0].startswith(b"[vsyscall]"):  # of the kernel: the whole call would fail
            continue
        first, _, end = addresses.partition(b"-")
        yield int(first, 16), int(end, 16) - int(first, 16)


def pieces(ranges: Iterable[Range], size: int = PIECE) -> Iterator[list[Range]]:
    """The same ranges in lists of at most `size` bytes and RANGES ranges. Cuts those that are too long."""
    piece, room = list[Range](), size
    for address, length in ranges:
        start, left = address, length
        while left:
            part = min(left, room)
            piece.append((start, part))
            start, left, room = start + part, left - part, room - part
            if not room or len(piece) == RANGES:
                yield piece
                piece, room = [], size
    if piece:
        yield piece


def _push(process: int, parts: Iterator[list[Range]], is_over: Callable[[], bool]) -> None:
    """`process`: a pidfd. Raises OSError when it has ended."""
    for piece in parts:
        left = piece
        while left:
            if is_over() or not swap_is_free():
                return
            began = time.monotonic()
            left = _after(left, _advise(process, left))
            spent = time.monotonic() - began
            if spent > REST_AFTER:
                time.sleep(spent)


def _advise(process: int, ranges: list[Range]) -> int:
    """Returns the bytes of addresses that the kernel has been through: 0 where it refuses the first range, such as a
    locked one. Raises OSError when the process has ended."""
    vectors = (_Vector * len(ranges))(*(_Vector(*each) for each in ranges))
    count = ctypes.c_size_t(len(ranges))
    done = LIBC.syscall(PROCESS_MADVISE, process, ctypes.byref(vectors), count, MADV_PAGEOUT, 0)
    if done < 0 and (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOMEM, errno.EFAULT, errno.EINTR):
        raise OSError(number, os.strerror(number))
    return max(0, int(done))


def _after(ranges: list[Range], done: int) -> list[Range]:
    """What is left, without the first range where nothing was done."""
    if not done:
        return ranges[1:]
    left = list(ranges)
    while left and done:
        address, length = left.pop(0)
        if done < length:
            return [(address + done, length - done), *left]
        done -= length
    return left


def swap_is_free() -> bool:
    """Whether the host's swap has room beyond what stays free for others."""
    total, free = swap()
    return free * LEAVE > total


def swap() -> tuple[int, int]:
    """How much the host has, and how much of it is free, in the same unit. Takes a microsecond."""
    told = _System()
    LIBC.sysinfo(ctypes.byref(told))
    return told.swap, told.free_swap


def _members(group: Path) -> Iterator[tuple[int, int]]:
    """Pids, and a pidfd of each, which the caller closes."""
    for pid in _pids(group):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        if pid in _pids(group):
            yield pid, handle
        else:
            os.close(handle)


def _pids(group: Path) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in group.read_text().split()]
    return []


def _shared_memory() -> bytes:
    """The device of shared memory that has no file system, as /proc/PID/maps writes it."""
    file = os.memfd_create("buntime")
    try:
        device = os.fstat(file).st_dev
    finally:
        os.close(file)
    return f"{os.major(device):02x}:{os.minor(device):02x}".encode()


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    for line in asked:
        processes, memory = (Path(os.fsdecode(path)) for path in line.rstrip(b"\n").split(b"\t"))
        deadline = time.monotonic() + SECONDS
        with suppress(OSError):  # the sandbox has ended
            if swap_is_free():
                page_out(processes, deadline)
                give_up_written(memory, deadline)
        answers.write(b"\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
