"""Failures that a guest reports, as errors that a client can act on. Impostors are told apart here too."""

from collections.abc import Callable, Mapping

import msgspec

from buntime.errors import (
    BuntimeError,
    DiskFull,
    FileConflict,
    FileNotFound,
    InvalidRequest,
    InvalidState,
    PayloadTooLarge,
    SessionBusy,
)
from buntime.paths import for_client, shown
from buntime.ports import SandboxGone

UNREADABLE = (msgspec.MsgspecError, RecursionError)  # of the wrong form, or nested too deeply
LONGEST_PATH = 65536  # characters of a path that a guest may name: deep trees have paths that no single call takes
CONFLICTS = {
    "EISDIR": "is a directory.",
    "ENOTDIR": "is not a directory, or one of its parents is not.",
    "EEXIST": "exists already.",
    "ENOTEMPTY": "is a directory that is not empty; pass recursive=true to delete it with its contents.",
    "ELOOP": "goes through too many symbolic links.",
    "EBUSY": "is in use by the session itself and cannot be deleted or moved.",
    "EFBIG": "has too many entries to list.",
    "EINVAL": "is not a regular file.",
}


class SpareGone(Exception):
    """The parked process for the run is gone. Take another one."""


class Unfit(Exception):
    """The prepared process differs from what a fresh start would give. Start a new process. Its text is the path of the
    file that has changed, if the guest names one."""


class NotKnown(Exception):
    """The guest, of an earlier version, does not know the operation."""


class Impostor(SandboxGone):
    """The answer does not come from our guest. Its sandbox has to end."""


class _Failure(msgspec.Struct):
    errno: str
    path: str = ""


def failure_of(query: Mapping[str, str], text: bytes | bytearray, status: int) -> Exception:
    """The error that stands for what the guest reports."""
    try:
        failure = msgspec.json.decode(text, type=_Failure)
    except UNREADABLE:
        return SandboxGone(f"the guest answered {status}")
    path = for_client(shown(query["path"]) if query.get("path") else failure.path[:LONGEST_PATH])
    return _known_failure(failure.errno, path) or SandboxGone(f"the guest reports {failure.errno[:40]!r}")


def _known_failure(errno: str, path: str) -> BuntimeError | SpareGone | Unfit | NotKnown | None:
    if errno in CONFLICTS:
        if errno == "EFBIG":
            return PayloadTooLarge(f"{path!r} is larger than may be read or listed at once.", path=path)
        return FileConflict(path, errno, f"{path!r} {CONFLICTS[errno]}")
    makers: dict[str, Callable[[], BuntimeError | SpareGone | Unfit | NotKnown]] = {
        "ESRCH": lambda: SpareGone(),
        "ESTALE": lambda: Unfit(path),
        "ENOSYS": lambda: NotKnown(),
        "ENOENT": lambda: FileNotFound(path),
        "ENOSPC": lambda: DiskFull("The session's disk limit is reached."),
        "EDQUOT": lambda: DiskFull("The session's disk limit is reached."),
        "ENOEXEC": lambda: InvalidState("This needs a shell, and the session's image has neither bash nor /bin/sh."),
        "ETIME": lambda: SessionBusy("Too much time passed between two parts of the upload. Send it again."),
        "ENAMETOOLONG": lambda: InvalidRequest("path", f"{path[:100]!r}… is longer than the file system allows."),
        "E2BIG": lambda: InvalidRequest(
            "env", "env is larger than the kernel passes to a program (about 5.9 MB in total)."
        ),
    }
    if errno in makers:
        return makers[errno]()
    if errno in {"EPERM", "EACCES", "EROFS", "EMLINK", "ETXTBSY", "EXDEV", "ENXIO"}:
        return FileConflict(path, errno, f"The session's system refuses this for {path!r} ({errno}).")
    if errno in {"EAGAIN", "ENOMEM", "EMFILE", "ENFILE"}:
        return SessionBusy(f"The session has too much running to do this now ({errno}). Try again, or stop something.")
    return None
