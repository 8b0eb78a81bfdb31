"""Reads, signals and removes directories of control groups. All calls are quick.

Each run takes dozens of these. For them, a path is a text: pathlib takes several times as long as the kernel.
"""

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PIECE = 64 << 10  # bytes that a read asks for; the kernel gives at most a page of a list
TEXT = 16 << 10  # bytes: longer than any file that is read as text
type Read = Callable[[str], str]  # path → text; raises OSError


def pids_of(group: Path | str) -> list[int]:
    """Empty where the group is gone."""
    try:
        file = os.open(f"{group}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        parts = []
        while part := os.read(file, PIECE):
            parts.append(part)
        return [int(pid) for pid in b"".join(parts).split()]
    except OSError:
        return []
    finally:
        os.close(file)


def children_of(group: Path | str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def text_of(path: Path | str) -> str:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, TEXT).decode(errors="replace")  # a session chooses the names of its processes
    finally:
        os.close(file)


class OpenFiles:
    """Files that are read several times: each stays open from its first read until `close`. For one thread.

    To read a file that is open takes a quarter of the time. Each takes a descriptor of the server meanwhile.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def text_of(self, path: str) -> str:
        """What the file has now. Raises OSError, also where its group has gone since."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(file, TEXT, 0).decode(errors="replace")


def put_text(path: Path | str, text: str) -> None:
    """Writes into a file that exists."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def put_if_there(path: Path | str, text: str) -> bool:
    """Returns False when the group is gone. While another thread removes a group, its files fail with ENODEV."""
    try:
        put_text(path, text)
    except OSError as failed:
        if failed.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return False
    return True


def field_of(path: Path | str, name: str, read: Read = text_of) -> int:
    """A number from lines of names and numbers. 0 where the name is missing."""
    for line in read(str(path)).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def make_directory(group: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(group)  # noqa: PTH102 - see above


def signal_members(group: Path | str, pids: list[int], *numbers: signal.Signals) -> None:
    """Sends each signal to all of the processes before the next signal to any.

    Skips a process that was not in the group after its pidfd was opened: the kernel may have reused its pid.
    """
    handles = {}
    for pid in pids:
        try:
            handles[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
    try:
        members = [pid for pid in pids_of(group) if pid in handles]
        for number in numbers:
            for pid in members:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handles[pid], number)
    finally:
        for handle in handles.values():
            os.close(handle)


def remove_directory(group: Path | str) -> bool:
    """Returns whether it is gone: False where a process lives in it."""
    try:
        os.rmdir(group)  # noqa: PTH106 - see above
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_tree(group: Path) -> bool:
    """The same, with everything below it."""
    gone = [remove_tree(group / child) for child in children_of(group)]
    return all(gone) and remove_directory(group)
