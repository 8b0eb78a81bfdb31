"""Packs and unpacks local files and directories. Blocking."""

import os
import secrets
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def pack(directory: Path, file: IO[bytes]) -> None:
    """Packs the contents of a directory as `tar.gz`. Links stay links. Raises NotADirectoryError, OSError."""
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory.")
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for entry in sorted(directory.iterdir()):
            archive.add(entry, entry.name)


def unpack(file: IO[bytes], directory: Path) -> None:
    """Refuses entries that lead out of the directory: the archive comes from a session. Raises TarError, OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            archive.extractall(directory, filter=_inside)
    except (EOFError, OverflowError, ValueError, zlib.error) as broken:  # raised by the library for malformed input
        raise tarfile.ReadError(f"The archive is damaged: {broken}") from broken


def _inside(entry: tarfile.TarInfo, directory: str) -> tarfile.TarInfo | None:
    """A hard link to a symbolic link is itself a symbolic link at another path. Checks and creates it as one there."""
    found = tarfile.data_filter(entry, directory)
    if found is None or not found.islnk():
        return found
    linked = Path(directory) / found.linkname
    if not linked.is_symlink():
        return found
    made = tarfile.TarInfo(found.name)
    made.type, made.linkname = tarfile.SYMTYPE, str(linked.readlink())
    return tarfile.data_filter(made, directory)


def opened(path: Path) -> IO[bytes]:
    return path.open("rb")


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that appears at `path` if the block succeeds, and leaves nothing otherwise.

    Follows a link at `path`. Writes directly to what is neither a file nor a directory, such as a terminal.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb", buffering=0) as device:
            yield device
        return
    path = path.resolve()
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:  # the default mode; reading the umask would change it for all threads
            yield file
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def extent(file: IO[bytes]) -> tuple[int, int | None]:
    """Returns an open file's position and the number of bytes after it, or None if it cannot be read twice."""
    if not file.seekable():
        return 0, None
    begin = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(begin)
    return begin, end - begin
