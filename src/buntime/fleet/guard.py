"""Keeps a watchdog running, for the server, or looks after one that init runs. A watchdog outlives the server."""

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.lease_file import LeaseFile

log = structlog.get_logger(__name__)

DELAY = 0.1  # seconds between the end of one and the start of the next
STOPPED = 2.0  # seconds without a look of its own, after which a watchdog counts as none
LOOKS = 20  # for a watchdog that something else runs, before the log tells that there is none
LOOK_SECONDS = 0.01  # between two looks whether it watches
QUIET = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
COMMAND = (sys.executable, "-m", "buntime_cli", "watchdog")


class Guard:
    """`command`: starts a watchdog of the same lease file, by its whole path. It ends any other one of that file.
    An empty one: something else runs it, such as a unit of its own."""

    def __init__(self, command: Sequence[str], file: LeaseFile) -> None:
        self._command = list(command)
        self._file = file
        self._pid = 0  # of the one that runs

    async def run(self) -> None:
        """Starts the next one whenever one ends, until cancelled. The last one stays."""
        while True:
            handle = self._start() if self._command else await self._found()
            try:
                await _readable(handle)
                self._pid = 0
                log.warning("watchdog_ended", exit=_exit_of(handle))
            finally:
                os.close(handle)
            await asyncio.sleep(DELAY)

    def _start(self) -> int:
        """Returns a pidfd. Neither asyncio nor subprocess lets go of a process that runs."""
        self._pid = os.posix_spawn(self._command[0], self._command, os.environ, file_actions=QUIET, setsid=True)
        return os.pidfd_open(self._pid)

    async def _found(self) -> int:
        """Returns a pidfd of the watchdog that runs, once there is one."""
        for look in itertools.count():
            told = self._file.watched()
            if told and boot_seconds() - told.at < STOPPED:
                with suppress(ProcessLookupError):
                    handle, self._pid = os.pidfd_open(told.pid), told.pid
                    return handle
            if look == LOOKS:
                log.error("watchdog_missing", start="systemctl start buntime-watchdog")
            await asyncio.sleep(DELAY)
        raise AssertionError  # it never ends

    def watches(self, incarnation: int) -> bool:
        """Whether a watchdog runs that fences this incarnation at its end."""
        told = self._file.watched()
        if told is None or told.pid != self._pid or told.incarnation != incarnation:
            return False
        return boot_seconds() - told.at < STOPPED

    async def until_it_watches(self, incarnation: int, wanted: Callable[[], bool]) -> None:
        """Returns earlier where it is not wanted any more."""
        while wanted() and not self.watches(incarnation):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(LOOK_SECONDS)

    def has_fenced(self, incarnation: int) -> bool:
        told = self._file.watched()
        return told is not None and told.fenced >= incarnation


def _exit_of(handle: int) -> int | None:
    """None where it was no child of this process."""
    with suppress(ChildProcessError):
        ended = os.waitid(os.P_PIDFD, handle, os.WEXITED)
        return ended and ended.si_status
    return None


async def _readable(handle: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)
