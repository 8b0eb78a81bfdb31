"""Keeps a spare running, for the watchdog: see `spare`."""

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from buntime.fleet.lease_file import LeaseFile
from buntime.fleet.lease_records import LOCK, SPARE

SOURCES = Path(__file__).parents[2]
RUN = f"import sys; sys.path.append({str(SOURCES)!r}); from buntime.fleet.spare import main; main()"
QUIET = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
PAUSE = 1.0  # seconds between two starts at least
END_SECONDS = 5.0


class KeptSpare:
    """One spare at a time. `path`: the same lease file. `group`: the cgroup above all sandboxes."""

    def __init__(self, file: LeaseFile, path: Path, group: Path) -> None:
        # without `site`, an interpreter is half as large
        self._command = [sys.executable, "-I", "-S", "-c", RUN, str(path), str(group)]
        self._file = file
        self._handle = self._pipe = -1
        self._started = -PAUSE

    @property
    def handles(self) -> Sequence[int]:
        """Readable when the spare has ended."""
        return [self._handle] if self._handle >= 0 else []

    def look(self) -> None:
        """Starts a spare where none runs, in place of any that an earlier watchdog has left. Raises OSError."""
        if self._handle >= 0 and os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG):
            self._forget()
        if self._handle < 0 and time.monotonic() >= self._started + PAUSE:
            self._started = time.monotonic()
            end_spare(self._file)
            self._start()

    def _start(self) -> None:
        theirs, self._pipe = os.pipe()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, theirs, 0), QUIET]
            pid = os.posix_spawn(self._command[0], self._command, {}, file_actions=actions, setsid=True)
            self._handle = os.pidfd_open(pid)
        except OSError:
            self._forget()
            raise
        finally:
            os.close(theirs)

    def _forget(self) -> None:
        for handle in (self._handle, self._pipe):
            if handle >= 0:
                os.close(handle)
        self._handle = self._pipe = -1

    def end(self) -> None:
        """For good."""
        if self._handle >= 0:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._handle, os.WEXITED)
            self._forget()


def spare_of(file: LeaseFile) -> int:
    """The pid of the spare that runs, of this watchdog or an earlier one; 0: none."""
    asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, SPARE, 1, 0)
    kind, _, _, _, pid = LOCK.unpack(fcntl.fcntl(file.handle, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def end_spare(file: LeaseFile) -> None:
    """Returns when none runs any more, or does not end."""
    deadline = time.monotonic() + END_SECONDS
    while (pid := spare_of(file)) and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if spare_of(file) == pid:  # so the handle is the spare's
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], END_SECONDS)
            finally:
                os.close(handle)
