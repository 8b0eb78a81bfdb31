"""The record of a sandbox: a small file from which the next start of the server can take the sandbox over."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

NO_SLOT = -1  # an earlier version stopped the sandbox, and left this record of its volume
# The version of how sandboxes are made. Raise it when a sandbox of an earlier version must not go on: the next start of
# the server ends it, and the session's next request starts it again on the same volume.
# 1: no open file of the host; a user namespace that the host counts for the session alone
# 2: a guest that speaks in frames
GENERATION = 2


@dataclass(frozen=True, slots=True)
class Record:
    sandbox: str
    slot: int
    image: str  # of its root file system
    secret: str
    session: str | None = None  # the session that has claimed it; None while it is parked
    generation: int = 0
    volume: str = ""


def write(directory: Path, record: Record) -> None:
    """Writes the record atomically."""
    fresh = directory / "record.new"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(record)))
    fresh.rename(directory / "record.json")


def read(directory: Path) -> Record | None:
    """The record, or None when it is missing or a crash cut it short."""
    try:
        record = Record(**json.loads((directory / "record.json").read_text()))
        return record if record.volume else replace(record, volume=record.sandbox)  # one of an earlier version
    except (OSError, ValueError, TypeError):
        return None


def running_init(directory: Path, is_its: Callable[[str], bool]) -> int | None:
    """The host's pid of the sandbox's init, or None when it has ended. Pids are reused, so the process must also be in
    the sandbox's own cgroup. `is_its`: whether the text of a process's /proc/PID/cgroup says so."""
    try:
        pid = int((directory / "pid").read_text())
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except (OSError, ValueError):
        return None
    return pid if is_its(groups) else None


def open_process(pid: int) -> int | None:
    """A pidfd, or None when the process is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def pid_of(pidfd: int) -> int:
    """The process's pid, or -1 when the process is gone. Another may get the pid as soon as it is."""
    fields = Path(f"/proc/self/fdinfo/{pidfd}").read_text().split()
    return int(fields[fields.index("Pid:") + 1])
