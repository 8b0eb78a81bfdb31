"""What is kept beside a sandbox, so that the next start can take it up: one small file each."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NO_SLOT = -1  # of a sandbox that was stopped: only its volume is left
# How sandboxes are made. Count it up when one that an earlier version has started may not go on as it is: the next
# start of the server ends it, and the session's next request starts it again on the same volume.
# 1: no open file of the host, a user namespace that the host counts for the session alone
GENERATION = 1


@dataclass(frozen=True, slots=True)
class Record:
    sandbox: str
    slot: int
    image: str
    secret: str
    session: str | None = None  # who has claimed it; None while it is parked
    generation: int = 0


def write(directory: Path, record: Record) -> None:
    """Whole or not at all."""
    fresh = directory / "record.new"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(record)))
    fresh.rename(directory / "record.json")


def read(directory: Path) -> Record | None:
    """None where it is missing or was cut short by a crash."""
    try:
        return Record(**json.loads((directory / "record.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running_init(directory: Path, cgroup: str) -> int | None:
    """The host's pid of the sandbox's init, if it lives: the pid must be in the sandbox's own cgroup, since
    numbers are used again."""
    try:
        pid = int((directory / "pid").read_text())
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except (OSError, ValueError):
        return None
    return pid if any(line.endswith(f":{cgroup}") for line in groups.splitlines()) else None


def open_process(pid: int) -> int | None:
    """A pidfd, or None when the process is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
