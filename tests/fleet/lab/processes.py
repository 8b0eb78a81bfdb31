"""Finds processes by what the kernel says of them, so nothing has to be remembered about those that were started."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SECONDS = 60.0  # a guard against a hang


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: tuple[str, ...]


def running(is_meant: Callable[[Path], bool]) -> list[Process]:
    """Those of which it is true. `is_meant` gets a directory of /proc, and may raise OSError for a process that ends.

    Without zombies, kernel threads and this process.
    """
    return list(_running(is_meant))


def _running(is_meant: Callable[[Path], bool]) -> Iterator[Process]:
    for directory in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if int(directory.name) == os.getpid() or not is_meant(directory):
                continue
            command = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if command != [""]:
                yield Process(int(directory.name), tuple(command[:-1]))


def in_namespace(namespace: Path) -> Callable[[Path], bool]:
    """Processes in a network namespace, which may not be there."""
    try:
        wanted = namespace.stat().st_ino
    except FileNotFoundError:
        return lambda _: False
    return lambda process: (process / "ns/net").stat().st_ino == wanted


def with_setting(name: str, value: str) -> Callable[[Path], bool]:
    """Processes that were started with an environment variable."""
    wanted = f"{name}={value}".encode()
    return lambda process: wanted in (process / "environ").read_bytes().split(b"\0")


def in_cgroup(name: str) -> Callable[[Path], bool]:
    """Processes in the cgroup of this name at the top of any hierarchy, and below it."""
    return lambda process: f":/{name}/" in (process / "cgroup").read_text()


def send(number: signal.Signals, processes: Iterable[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def send_to_all(number: signal.Signals, find: Callable[[], Collection[Process]]) -> None:
    """Also to those that are started meanwhile."""
    told: set[int] = set()
    while new := [process for process in find() if process.pid not in told]:
        send(number, new)
        told |= {process.pid for process in new}


def end(find: Callable[[], Collection[Process]], number: signal.Signals = signal.SIGKILL) -> None:
    """Sends the signal until none is left. Raises AssertionError if that takes too long."""
    deadline = time.monotonic() + SECONDS
    while left := find():
        assert time.monotonic() < deadline, f"these do not end: {left}"
        send(number, left)
        time.sleep(0.02)
