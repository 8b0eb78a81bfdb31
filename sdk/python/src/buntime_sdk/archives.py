"""Local files and directories on their way into a session and out of it. Blocking."""

import os
import secrets
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def pack(directory: Path, file: IO[bytes]) -> None:
    """What is in it as `tar.gz`; links stay links. Raises NotADirectoryError and what reading it raises."""
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is no directory.")
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for entry in sorted(directory.iterdir()):
            archive.add(entry, entry.name)


def unpack(file: IO[bytes], directory: Path) -> None:
    """Refuses what would leave the directory: the archive comes out of a session. Raises tarfile.TarError, OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            archive.extractall(directory, filter=_inside)
    except (EOFError, OverflowError, ValueError, zlib.error) as broken:  # what the library makes of nonsense
        raise tarfile.ReadError(f"The archive is damaged: {broken}") from broken


def _inside(entry: tarfile.TarInfo, directory: str) -> tarfile.TarInfo | None:
    """A hard link of a symbolic link is a symbolic link too, at another place: judged as such there, and made so."""
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
    """A file that is at `path` when the block ends well, and nowhere when it does not.

    A link is written through, and what is neither a file nor a directory, such as a terminal, is written to.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb", buffering=0) as device:
            yield device
        return
    path = path.resolve()
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:  # with the permissions of a new file; the umask is the whole process's
            yield file
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def extent(file: IO[bytes]) -> tuple[int, int | None]:
    """Where an open file stands, and how many bytes follow; None where it cannot be read twice."""
    if not file.seekable():
        return 0, None
    begin = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(begin)
    return begin, end - begin
