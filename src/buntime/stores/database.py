"""Makes, opens, migrates and checks the SQLite file. Everything here blocks."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

APPLICATION_ID = 0x62756E74  # "bunt": distinguishes our stores from other SQLite files
BUSY_SECONDS = 5.0  # a change waits this long for another process that writes
LOCK_SECONDS = 1.0  # a start waits this long for a server that is ending
EMPTY_LOG_MS = 50  # changes may wait this long for a reader of the log
LARGEST_WHOLE_CHECK = 256 << 20  # bytes; in a larger file, only the tables that are kept in memory are checked
MIGRATIONS = Path(__file__).with_name("sql")

_CONNECTION_SETTINGS = """
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL; -- in WAL mode anything less forgets acknowledged commits on power loss
PRAGMA secure_delete = ON; -- metadata, env and key of a deleted session do not stay behind in free pages
PRAGMA journal_size_limit = 67108864;
"""


class StoreUnusable(Exception):
    """The store cannot be opened. The message tells the operator why."""


class StoreDamaged(StoreUnusable):
    """The file is damaged. We never repair it by guessing and never replace it silently."""

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(
            f"The store {path} is damaged ({what}). Put back a copy of it, or move it away to start empty."
        )


class StoreTooNew(StoreUnusable):
    """A newer version of buntime wrote the file."""

    def __init__(self, path: Path, version: int, known: int) -> None:
        super().__init__(
            f"The store {path} has version {version}; this buntime knows versions up to {known}. "
            "Start the newer buntime again, or put back a copy from before the update."
        )


class StoreInUse(StoreUnusable):
    """Another server uses the store. Two servers would not see each other's sessions."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Another buntime server uses the store {path}. Stop it first.")


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to the store, which is made (mode 0600) if it is missing.

    May be used by any thread, one at a time. Raises StoreUnusable.
    """
    with failures_named(path):
        _make(path)
        connection = _open(path)
        try:
            _require_ours(connection, path)
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits all of the block or nothing. Other processes see it at the end."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk makes SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise


def lock(path: Path) -> int:
    """Claims the store for one server, and makes it if it is missing. Closing the descriptor gives it back.

    It must be closed after all connections: closing any descriptor of the file drops SQLite's own
    (POSIX) locks of this process. Raises StoreInUse and other StoreUnusable.
    """
    with failures_named(path):
        _make(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise StoreInUse(path) from None
            time.sleep(0.02)
        else:
            return descriptor


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreDamaged when the file's structure is broken. Takes about a second at most."""
    small = path.stat().st_size <= LARGEST_WHOLE_CHECK
    with failures_named(path):
        for scope in ("",) if small else ("(accounts)", "(keys)", "(sessions)", "(session_counts)"):
            finding = connection.execute(f"PRAGMA quick_check{scope}").fetchone()[0]
            if finding != "ok":
                raise StoreDamaged(path, " ".join(str(finding).split()))


def empty_log(path: Path) -> bool:
    """Moves the write-ahead log into the file and empties it. Changes wait meanwhile; readers do not.

    False where somebody reads what is in it, or the host cannot do it now.
    """
    try:
        with failures_named(path), closing(_open(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {EMPTY_LOG_MS}")
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()["busy"] == 0)
    except StoreUnusable:
        return False


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Raises StoreUnusable for failures of SQLite and the system."""
    try:
        yield
    except sqlite3.OperationalError as failure:  # locked, read-only, no space, no permission
        raise StoreUnusable(f"The store {path} cannot be opened: {failure}.") from failure
    except sqlite3.DatabaseError as failure:
        raise StoreDamaged(path, failure) from failure
    except OSError as failure:
        raise StoreUnusable(f"The store {path} cannot be opened: {failure.strerror}.") from failure


def _open(path: Path) -> sqlite3.Connection:
    # mode=rw: a file that vanished is an error, not a reason for SQLite to make an empty one
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        autocommit=True,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.executescript(_CONNECTION_SETTINGS)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Makes an empty store if there is no file.

    It is made under another name and renamed when whole: a file under the real name is never half
    a store, so an empty or foreign one there is damage and not a first start. The lock on the unfinished
    file lets several processes try at once and one that was killed be followed by the next.
    """
    if path.exists():
        return
    unfinished = path.with_name(path.name + ".new")
    with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():  # made while we waited; our descriptor may be of that file
            if unfinished.exists() and not unfinished.samefile(path):
                unfinished.unlink()
            return
        held.truncate(0)
        for rest in ("-wal", "-shm"):
            unfinished.with_name(unfinished.name + rest).unlink(missing_ok=True)
        connection = _open(unfinished)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(connection, unfinished)
        connection.close()
        unfinished.rename(path)
    _sync_directory(path.parent)


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    if _number(connection, "application_id") != APPLICATION_ID or _number(connection, "user_version") < 1:
        raise StoreDamaged(path, "it is not a buntime store")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Applies the numbered files that are newer than the store, all in one transaction."""
    steps = {int(file.name[:3]): file for file in MIGRATIONS.glob("[0-9][0-9][0-9]_*.sql")}
    newest = max(steps)
    if _number(connection, "user_version") == newest:
        return
    with transaction(connection):
        version = _number(connection, "user_version")  # again: another process may have been quicker
        if version > newest:
            raise StoreTooNew(path, version, newest)
        for number in sorted(steps):
            if number > version:
                connection.executescript(steps[number].read_text())
        connection.execute(f"PRAGMA user_version = {newest}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
