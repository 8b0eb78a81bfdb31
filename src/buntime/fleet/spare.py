"""The watchdog's spare: a small process that outlives the watchdog, and freezes the sandboxes if nobody follows it.

It waits for the end of a pipe that the watchdog alone holds open, and uses no CPU time until then. Another watchdog
that takes the place ends it. If none has come when the lease is over, the spare takes the place: it notes that the host
is fenced, freezes the cgroup above all sandboxes, kills what is not frozen within a second, and goes. The kernel has
closed the network by then. So whatever is killed, no spare stays for longer than a lease and a freeze.

It imports next to nothing of the standard library, and nothing else of buntime. It neither starts processes nor lifts
anything.
"""

import ctypes
import errno
import fcntl
import os
import signal
import sys
import time
from contextlib import suppress

from buntime.fleet.lease_records import SERVER, SIZE, SPARE, WATCHDOG, Numbers, packed, unpacked

NAME = "buntime-spare"
FREEZE_SECONDS = 1.0  # as in the budget: then what is not frozen is killed
LOOK_SECONDS = 0.01  # between two looks at what is not frozen yet
PIECE = 64 << 10  # bytes that a read asks for
AGAIN = 0.1  # seconds between two attempts to freeze what waits in the kernel
TRIES = 100  # at a record that is being written
LOCKED = 7  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT: what it has used once stays in memory


def main() -> None:
    """Arguments: the lease file, and the cgroup above all sandboxes. Input: the pipe of the watchdog."""
    path, group = sys.argv[1:]
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, SPARE)
    except OSError:  # the host is in no fleet any more, or another spare runs
        return
    _stay_alive()
    _is_over(file), _is_frozen(group)  # so that what they need is in memory
    while os.read(0, 1):
        pass
    take_over(file, group)


def take_over(file: int, group: str) -> None:
    """The watchdog has ended. Returns when another one has the place, when the lease file is gone, or when all
    sandboxes are frozen. Raises OSError."""
    timer = os.timerfd_create(time.CLOCK_BOOTTIME)
    while not _is_over(file):
        os.timerfd_settime_ns(timer, flags=os.TFD_TIMER_ABSTIME, initial=_end_of(file))
        os.read(timer, 8)
    if not _has_place(file):
        return
    if os.fstat(file).st_nlink and _is_over(file):
        _note(file)
        while not freeze_or_kill(group):
            time.sleep(AGAIN)


def _end_of(file: int) -> int:
    """Nanoseconds of CLOCK_BOOTTIME; 1: no lease runs."""
    shown, watched = _read(file, SERVER), _read(file, WATCHDOG)
    return max(1, shown[1]) if shown and not (watched and shown[0] <= watched[1]) else 1


def _is_over(file: int) -> bool:
    return not os.fstat(file).st_nlink or time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= _end_of(file)


def _has_place(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(file: int) -> None:
    """That the host is fenced, and by whom: the server and the next watchdog see it."""
    shown, watched = _read(file, SERVER), _read(file, WATCHDOG)
    fenced = max(shown[0] if shown else 0, watched[1] if watched else 0)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    os.pwrite(file, packed(_boot(), 0, fenced, os.getpid(), now), WATCHDOG)


def _read(file: int, place: int) -> Numbers | None:
    boot = _boot()
    for _ in range(TRIES):
        try:
            return unpacked(os.pread(file, SIZE, place), boot)
        except ValueError:
            continue
    return None


def _boot() -> bytes:
    return bytes.fromhex(_text("/proc/sys/kernel/random/boot_id").strip().replace("-", ""))


# --- freezing, as in `sandboxes.kernel.freezing` ---


def freeze_or_kill(group: str, seconds: float = FREEZE_SECONDS) -> bool:
    """Returns whether all is frozen, or nothing is there. Else what is not frozen has got SIGKILL. Raises OSError."""
    deadline = time.monotonic() + seconds
    while _freeze(group) and not _is_frozen(group):
        if time.monotonic() > deadline:
            _kill_unfrozen(group)
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _freeze(group: str) -> bool:
    """Returns False where there is no such group."""
    return _put(f"{group}/cgroup.freeze", "1") or _put(f"{group}/freezer.state", "FROZEN")


def _is_frozen(group: str) -> bool:
    """True where the group has ended."""
    for name, said in ("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN"):
        try:
            return said in _text(f"{group}/{name}").splitlines()
        except OSError:
            continue
    return True


def _kill_unfrozen(group: str) -> None:
    """Sends SIGKILL to every process of a sandbox that is not frozen as a whole."""
    try:
        entries = list(os.scandir(group))
    except FileNotFoundError:
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) or _is_frozen(entry.path):
            continue
        if not _put(f"{entry.path}/cgroup.kill", "1"):
            for directory, _, _ in os.walk(entry.path):
                _kill_all(directory)


def _kill_all(group: str) -> None:
    """On cgroup v1. The kernel may have reused a pid, so the process must be in the group after it was opened."""
    for pid in _pids(group):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if pid in _pids(group):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _pids(group: str) -> list[int]:
    try:
        return [int(pid) for pid in _text(f"{group}/cgroup.procs").split()]
    except OSError:
        return []


def _text(path: str) -> str:
    file, parts = os.open(path, os.O_RDONLY | os.O_CLOEXEC), []
    try:
        while part := os.read(file, PIECE):
            parts.append(part)
    finally:
        os.close(file)
    return b"".join(parts).decode()


def _put(path: str, text: str) -> bool:
    """Returns False where there is no such file."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as failed:
        if failed.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return False
    return True


def _stay_alive() -> None:
    """`oom_score_adj` is the watchdog's. Where the host does not allow more, it does without."""
    _put("/proc/self/comm", NAME)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    ctypes.CDLL(None).mlockall(LOCKED)
