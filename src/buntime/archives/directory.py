"""The archive in a directory. An object is on disk when `put` returns."""

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from buntime.archives import NAME, PREFIX, checked
from buntime.archives.content import are_equal
from buntime.ports import ArchiveUnavailable, ObjectExists, ObjectMissing, Upload

INCOMING = ".incoming"  # no object's name has a dot
PIECE = 1 << 20  # bytes
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # of a file system without hard links


class DirectoryArchive:
    """Stores each object in a file with the object's name.

    A file under construction is in INCOMING, locked while its writer lives. It gets its name when it is complete and on
    disk. A directory without INCOMING is not the archive: its disk is not mounted, so objects do not count as missing.
    """

    def __init__(self, root: Path, reserve: int = 0) -> None:
        """`reserve`: bytes of the file system to keep free. Raises OSError."""
        self._root, self._reserve = root, reserve
        self._incoming = root / INCOMING
        self._entries = (
            threading.Lock()
        )  # keeps `delete` from removing a directory in which `put` is about to create a file
        _make_directories(self._incoming)
        _remove_abandoned(self._incoming)

    def put(self, name: str, content: Iterator[bytes]) -> None:
        path = self._root / checked(NAME, name)
        self._require_room()
        with _refusals():
            incoming = os.open(self._incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._put(incoming, path, content)
        finally:
            os.close(incoming)

    def _put(self, incoming: int, path: Path, content: Iterator[bytes]) -> None:
        with _refusals():
            part, file = _new_file(incoming)
        try:
            with file:
                for piece in content:
                    self._require_room()
                    with _refusals():
                        _write(file, piece)
                with _refusals():
                    _write_out(file)
                    is_new = self._give_name(self._incoming / part, path)
            if not is_new:
                self._require_same(self._incoming / part, path)
        finally:
            # Its first name goes, even if the archive has moved. The next start removes what is left.
            with suppress(OSError):
                os.unlink(part, dir_fd=incoming)

    def get(self, name: str) -> Iterator[bytes]:
        path = self._root / checked(NAME, name)
        with _refusals():
            try:
                file = path.open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._missing(name) from None
        with file:
            yield from _pieces(file)

    def delete(self, name: str) -> None:
        path = self._root / checked(NAME, name)
        with self._entries, _refusals():
            self._require_mounted()
            path.unlink(missing_ok=True)
            for directory in path.relative_to(self._root).parents[:-1]:
                try:
                    (self._root / directory).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:  # not empty
                    break
            _sync_directory(_nearest(path.parent))

    def names(self, prefix: str) -> Sequence[str]:
        start = self._root / checked(PREFIX, prefix)
        with _refusals():
            self._require_mounted()
            found = [directory / file for directory, _, files in start.walk(on_error=_raise) for file in files]
        return sorted(str(path.relative_to(self._root)) for path in found if self._incoming not in path.parents)

    def uploads(self, prefix: str) -> Sequence[Upload]:
        checked(PREFIX, prefix)
        return ()  # those of dead writers were removed when this was opened

    def abort(self, upload: Upload) -> None:
        return None

    def _give_name(self, part: Path, path: Path) -> bool:
        """Returns False, with nothing changed, where the name is taken. A name that is found may not be on disk yet."""
        with self._entries:
            _make_directories(path.parent)
            is_new = _named(part, path)
            for directory in path.relative_to(self._root).parents:
                _sync_directory(self._root / directory)
        return is_new

    def _require_same(self, part: Path, path: Path) -> None:
        """Raises ObjectExists."""
        with _refusals(), part.open("rb", buffering=0) as new, path.open("rb", buffering=0) as there:
            if are_equal(_pieces(new), _pieces(there)):
                return
        raise ObjectExists(str(path.relative_to(self._root)))

    def _missing(self, name: str) -> Exception:
        self._require_mounted()
        return ObjectMissing(name)

    def _require_mounted(self) -> None:
        if not self._incoming.exists():
            raise ArchiveUnavailable(f"{self._root} is not the archive. Is its disk mounted?")

    def _require_room(self) -> None:
        with _refusals():
            free = os.statvfs(self._root)
        if free.f_bavail * free.f_frsize < self._reserve:
            raise ArchiveUnavailable(f"{self._root} has less than {self._reserve >> 20} MB free")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        raise ArchiveUnavailable(f"the archive directory failed: {failed}") from failed


def _raise(failed: OSError) -> None:
    """A missing directory has no objects. A directory that cannot be read is an error."""
    if not isinstance(failed, FileNotFoundError | NotADirectoryError):
        raise failed


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := _read(file):
        yield piece


def _read(file: IO[bytes]) -> bytes:
    with _refusals():
        return file.read(PIECE)


def _named(part: Path, path: Path) -> bool:
    """Gives the file a name that no other one has. Returns False where one has it. A file system without hard links
    needs two steps: two hosts that put an object under the same name at the same time may both believe it new."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError as failed:
        if failed.errno not in NO_LINKS:
            raise
        if path.exists():
            return False
        part.rename(path)
    return True


def _new_file(directory: int) -> tuple[str, IO[bytes]]:
    part = secrets.token_hex(16)
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    file = os.fdopen(number, "wb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    return part, file


def _write(file: IO[bytes], piece: bytes) -> None:
    """Writes all of it: before a full disk, a write can be short."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _write_out(file: IO[bytes]) -> None:
    """Writes the file to disk and drops it from memory, so that reading it back reads the disk."""
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _remove_abandoned(directory: Path) -> None:
    """Removes files of dead writers. Files of live writers, perhaps in another process, are locked."""
    for part in directory.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _make_directories(path: Path) -> None:
    """Creates the directories. They are on disk when this returns."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(path.parent)


def _nearest(path: Path) -> Path:
    return path if path.is_dir() else _nearest(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
