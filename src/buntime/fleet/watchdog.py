"""The watchdog: a process of its own that fences the host when the server shows no renewal.

It reads what the server shows, and trusts nothing else. It never opens the fence. One incarnation that it has fenced
stays fenced, also for the next watchdog, whatever a server that was stopped meanwhile shows of it later.
"""

import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.fence import Fence
from buntime.fleet.keeping_spare import KeptSpare, end_spare
from buntime.fleet.lease_file import LeaseFile, Watched

LOOK_SECONDS = 0.25  # between two looks while the host is open, and at its end
AGAIN = 0.1  # seconds between two looks while the host is fenced; each look closes it again
PLACE_SECONDS = 5.0  # for an earlier watchdog to end
MCL_CURRENT, MCL_FUTURE = 1, 2
LEAST_KILLED = "-1000"  # of oom_score_adj: never


class Watchdog:
    """Decides at each look. `clock`: seconds of CLOCK_BOOTTIME."""

    def __init__(self, file: LeaseFile, fence: Fence, clock: Callable[[], float] = boot_seconds) -> None:
        self._file, self._fence, self._clock = file, fence, clock
        before = file.watched()
        self._fenced = before.fenced if before else 0

    def look(self) -> float:
        """Fences where it is time. Returns when to look again. Raises what a fence raises, after it has told that the
        host is fenced."""
        shown, now = self._file.shown(), self._clock()
        if shown and shown.incarnation > self._fenced and now < shown.until:
            self._file.watch(Watched(shown.incarnation, self._fenced, os.getpid(), now))
            return min(shown.until, now + LOOK_SECONDS)
        self.fence()
        return self._clock() + AGAIN

    def fence(self) -> None:
        """Tells it first, so that the server joins anew and thaws what this freezes. Raises what a fence raises."""
        shown = self._file.shown()
        self._fenced = max(self._fenced, shown.incarnation if shown else 0)
        self._file.watch(Watched(0, self._fenced, os.getpid(), self._clock()))
        self._fence.close()


class _Stopped(BaseException):
    """A signal asks the watchdog to end."""


def watch(path: Path, fence: Fence, group: Path) -> None:
    """Runs until SIGTERM or SIGINT, and fences the host at its end. Takes the place of an earlier watchdog.

    `group`: the cgroup above all sandboxes, which a spare freezes if this process is killed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    file = LeaseFile(path)
    _take_place(file)
    _stay_alive()
    watchdog, timer = Watchdog(file, fence), os.timerfd_create(time.CLOCK_BOOTTIME)
    spare = KeptSpare(file, path, group)
    try:
        while True:
            try:
                again = watchdog.look()
            except Exception as failed:  # noqa: BLE001 - whatever it is, the next look tries again
                _say(f"the fence could not be closed: {failed}")
                again = boot_seconds() + AGAIN
            try:
                spare.look()
            except OSError as failed:
                _say(f"no spare could be started: {failed}")
            os.timerfd_settime(timer, flags=os.TFD_TIMER_ABSTIME, initial=again)
            select.select([timer, *spare.handles], [], [])
    except _Stopped:
        try:
            watchdog.fence()
        finally:
            spare.end()


def end_watchdog(path: Path) -> None:
    """Ends the watchdog of this file for good, with its spare, and removes the file. No server may run. The host stays
    as it is: closed, if it was."""
    file = LeaseFile(path)
    _take_place(file)
    end_spare(file)
    path.unlink(missing_ok=True)  # before the place is free: a spare that starts just now finds it gone, and goes
    file.close()


def _take_place(file: LeaseFile) -> None:
    """Ends the watchdog that has the place. Until this one looks, the kernel closes the fence if the time comes."""
    deadline = time.monotonic() + PLACE_SECONDS
    while not _locked(file):
        pid = _pid_of(file)
        with suppress(ProcessLookupError):
            if pid:
                _end_holder(file, pid)
        if time.monotonic() > deadline:
            raise SystemExit("another watchdog does not end")
        time.sleep(0.01)


def _end_holder(file: LeaseFile, pid: int) -> None:
    """Raises ProcessLookupError."""
    handle = os.pidfd_open(pid)
    try:
        if not _locked(file) and _pid_of(file) == pid:  # so the handle is the holder's
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], PLACE_SECONDS)
    finally:
        os.close(handle)


def _pid_of(file: LeaseFile) -> int:
    told = file.watched()
    return told.pid if told else 0


def _locked(file: LeaseFile) -> bool:
    try:
        fcntl.flock(file.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stay_alive() -> None:
    """Sessions may use up memory and CPU time: the watchdog must find both all the same. Where the host does not allow
    it, it does without."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(LEAST_KILLED)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE)


def _stop(*_: object) -> None:
    raise _Stopped


def _say(text: str) -> None:
    with suppress(OSError):  # what reads it may have ended with the server
        sys.stderr.write(f"buntime watchdog: {text}\n")
        sys.stderr.flush()
