"""Creates, opens, migrates and checks the SQLite file. Everything here blocks."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from buntime.stores.unusable import StoreTooNew, StoreUnusable

APPLICATION_ID = 0x62756E74  # "bunt": marks a SQLite file as a buntime store
BUSY_SECONDS = 5.0  # how long a change waits while another process writes
LOCK_SECONDS = 1.0  # how long a start waits while another server stops
EMPTY_LOG_MS = 50  # how long a reader of the log may delay changes
LARGEST_WHOLE_CHECK = 256 << 20  # bytes; in a larger file only the tables of PARTS are checked
MIGRATIONS = Path(__file__).with_name("sql")

# What is loaded into memory, and what decides which files are destroyed.
PARTS = ("accounts", "keys", "account_changes", "sessions", "session_counts", "layers", "snapshots", "made_images")

_CONNECTION_SETTINGS = """
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL; -- in WAL mode, anything less loses acknowledged commits at a power loss
PRAGMA secure_delete = ON; -- wipes metadata, env and key of a deleted session from free pages
PRAGMA journal_size_limit = 67108864;
"""


class StoreDamaged(StoreUnusable):
    """The file is not a complete store. It is never repaired by guessing and never replaced silently."""

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(f"The store {path} is damaged ({what}). Restore a copy of it, or move it away to start empty.")


class StoreInUse(StoreUnusable):
    """Another server uses the store. Two servers would not see each other's sessions."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Another buntime server uses the store {path}. Stop it first.")


def connect(path: Path) -> sqlite3.Connection:
    """Connects to the store in autocommit mode. Creates the store (mode 0600) if it does not exist.

    Any thread may use the connection, but only one at a time. Raises StoreUnusable.
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
    """Commits the whole block or nothing. Other processes see it at its end."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # on a full disk SQLite has already rolled back
            connection.execute("ROLLBACK")
        raise


def lock(path: Path) -> int:
    """Claims the store for one server. Creates it if it does not exist. Closing the descriptor releases it.

    Close it after all connections: closing any descriptor of the file drops SQLite's own POSIX locks of this process.
    Raises StoreInUse and other StoreUnusable.
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
    """Raises StoreDamaged if the file's structure is broken. Takes about a second at most."""
    small = path.stat().st_size <= LARGEST_WHOLE_CHECK
    with failures_named(path):
        for scope in [""] if small else [f"({table})" for table in PARTS]:
            finding = connection.execute(f"PRAGMA quick_check{scope}").fetchone()[0]
            if finding != "ok":
                raise StoreDamaged(path, " ".join(str(finding).split()))


def empty_log(path: Path) -> bool:
    """Moves the write-ahead log into the file and truncates it. Changes wait meanwhile, readers do not.

    Returns False if someone is reading the log, or if the host cannot do it now.
    """
    try:
        with failures_named(path), closing(_open(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {EMPTY_LOG_MS}")
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()["busy"] == 0)
    except StoreUnusable:
        return False


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own, for reads that take so long that a thread makes them. Raises StoreUnusable."""
    with failures_named(path), closing(_open(path)) as connection:
        yield connection


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the system into StoreUnusable."""
    try:
        yield
    except sqlite3.OperationalError as failure:  # locked, read-only, no space, no permission
        raise StoreUnusable(f"The store {path} cannot be opened: {failure}.") from failure
    except sqlite3.DatabaseError as failure:
        raise StoreDamaged(path, failure) from failure
    except OSError as failure:
        raise StoreUnusable(f"The store {path} cannot be opened: {failure.strerror}.") from failure


def _open(path: Path) -> sqlite3.Connection:
    # mode=rw: if the file vanished, SQLite must fail and not create an empty one
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
    """Creates an empty store if there is no file.

    The store is created under another name and renamed when it is complete. A file under the real name is therefore
    never half a store, and an empty or foreign file there is damage, not a first start. The lock on the unfinished file
    lets several processes try at once, and lets the next one continue after a process that was killed.
    """
    if path.exists():
        return
    unfinished = path.with_name(path.name + ".new")
    with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():  # another process created it meanwhile; the held file may be the same one
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
        version = _number(connection, "user_version")  # read again: another process may have been faster
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
