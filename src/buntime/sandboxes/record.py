"""The record of a sandbox: a small file from which the next start of the server can take the sandbox over."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from buntime.sandboxes.kernel.cgroup_tree import text_of

NO_SLOT = -1  # an earlier version stopped the sandbox, and left this record of its volume
# The version of how sandboxes are made. Raise it when a sandbox of an earlier version must not go on: the next start of
# the server ends it, and the session's next request starts it again on the same volume.
# 1: no open file of the host; a user namespace that the host counts for the session alone
# 2: a guest that speaks in frames
GENERATION = 2
SIZE = 512  # bytes of a file, with spaces at its end; a disk writes so many at once
MOST = 4096  # bytes that the kernel takes at once


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
    """Writes the record atomically: a server that is killed leaves the old one or the new one.

    Over the old one, of which the new one leaves nothing. A file that is put in its place by a rename would be written
    to the disk at once, and each create would wait for that.
    """
    content = msgspec.json.encode(record)
    try:
        file = os.open(f"{directory}/record.json", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        _put(directory, content)
        return
    try:
        size = max(os.fstat(file).st_size, _whole(len(content)))
        if size <= MOST:
            os.pwrite(file, content.ljust(size), 0)
    finally:
        os.close(file)
    if size > MOST:
        _put(directory, content)


def _put(directory: Path, content: bytes) -> None:
    fresh = directory / "record.new"
    fresh.touch(mode=0o600)
    fresh.write_bytes(content.ljust(_whole(len(content))))
    fresh.rename(directory / "record.json")


def _whole(size: int) -> int:
    return -(-size // SIZE) * SIZE


def all_in(home: Path) -> dict[str, Record | None]:
    """What is in the directories of sandboxes, by their names. None as `read` has it."""
    place = str(home)  # pathlib takes longer than the kernel, and a host has thousands
    try:
        return {name: read(f"{place}/{name}") for name in os.listdir(place)}  # noqa: PTH208
    except FileNotFoundError:
        return {}


def read(directory: Path | str) -> Record | None:
    """The record, or None when it is missing or a crash cut it short."""
    try:
        record = Record(**msgspec.json.decode(text_of(f"{directory}/record.json")))
        return record if record.volume else replace(record, volume=record.sandbox)  # one of an earlier version
    except (OSError, ValueError, TypeError):
        return None


def running_init(directory: Path, is_its: Callable[[str], bool]) -> int | None:
    """The host's pid of the sandbox's init, or None when it has ended. Pids are reused, so the process must also be in
    the sandbox's own cgroup. `is_its`: whether the text of a process's /proc/PID/cgroup says so."""
    try:
        pid = int(text_of(f"{directory}/pid"))
        groups = text_of(f"/proc/{pid}/cgroup")
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
