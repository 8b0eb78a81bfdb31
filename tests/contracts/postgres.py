"""Runs PostgreSQL, as an unprivileged user and in a directory of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from buntime.fleet.members import Membership
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore

READY_SECONDS = 60
USER = "nobody" if os.geteuid() == 0 else None  # PostgreSQL does not run as root
INITIAL = (
    *("--username=buntime", "--auth-local=trust", "--auth-host=scram-sha-256"),
    *("--encoding=UTF8", "--locale=C", "--no-sync"),
)
FAST = ("deadlock_timeout=50ms", "fsync=off", "full_page_writes=off", "synchronous_commit=off")


LOCAL = Membership("local", 1)  # the owner of the examples' sessions, whose lease never ends
JOINED = """
INSERT INTO hosts VALUES (%s, %s, 0, '2999-01-01', false, 'active', 'local:1', '1', '{}') ON CONFLICT DO NOTHING
"""


class Server:
    """A server that accepts whoever comes by its socket, and those with the password over TCP."""

    def __init__(self, directory: Path, port: int, settings: Sequence[str]) -> None:
        self.port = port
        self.directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://buntime@/{database}?host={self.directory}&port={self.port}"

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://buntime:secret@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Makes an empty database, and returns its URL."""
        self.execute(f"CREATE DATABASE {database}")
        return self.url(database)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        options = [f"-c{one}" for one in (*self._settings, f"unix_socket_directories={self.directory}")]
        command = [str(installed() / "postgres"), "-D", str(self.directory / "data"), f"-p{self.port}", *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=USER,
                group="nogroup" if USER else None,
                extra_groups=() if USER else None,
            )
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise RuntimeError((self.directory / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
            else:
                return

    def crash(self) -> None:
        """What was not written to the disk is lost."""
        self.stop(signal.SIGQUIT)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Cuts all connections. Returns when the server has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(READY_SECONDS)


def installed() -> Path:
    """The programs of Debian's newest PostgreSQL."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]


def make_data(directory: Path, password: str) -> None:
    """Makes the files of a server in `directory`/data. Its superuser is buntime."""
    if USER:
        shutil.chown(directory, USER)
    file = directory / "password"
    file.write_text(f"{password}\n")
    if USER:
        shutil.chown(file, USER)
    file.chmod(0o600)
    subprocess.run(
        [installed() / "initdb", "-D", directory / "data", *INITIAL, f"--pwfile={file}"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=directory,
        user=USER,
        group="nogroup" if USER else None,
        extra_groups=() if USER else None,
    )


@contextmanager
def postgres(port: int, settings: Sequence[str] = FAST, directory: Path | None = None) -> Iterator[Server]:
    """Runs a server during the block, with its files below `directory`."""
    directory = Path(tempfile.mkdtemp(prefix="buntime-postgres-", dir=directory))
    try:
        make_data(directory, "secret")
        server = Server(directory, port, ("listen_addresses=127.0.0.1", "max_connections=200", *settings))
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


async def opened_as(me: Membership, url: str) -> PostgresStore:
    """The store as this member uses it."""
    return await PostgresStore.open(place_of(url), me.host, lambda: me)


async def emptied(url: str) -> None:
    """Makes the tables if there are none, and removes all that they hold."""
    await (await opened_as(LOCAL, url)).close()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = {row[0] for row in await found.fetchall()} - {"buntime_schema"}
        names = sql.SQL(", ").join(map(sql.Identifier, sorted(tables)))
        await connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(names))
        await connection.execute("INSERT INTO state_counts (shard) SELECT generate_series(0, 63)")
        await connection.execute("INSERT INTO duties VALUES ('fleet', '', 0)")
        await connection.execute(JOINED, [LOCAL.host, LOCAL.incarnation])


def empty(url: str) -> None:
    asyncio.run(emptied(url))
