"""What the hosts of a fleet share: PostgreSQL and an S3 server. Both outlive the process that starts them."""

import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.contracts import postgres, seaweed
from tests.fleet.lab import processes
from tests.fleet.lab.places import ARCHIVE_PORTS, DATABASE_PORT, Place
from tests.fleet.lab.processes import Process

NAME = "buntime"  # of the database, its user and the bucket
READY_SECONDS = 60.0
DURABLE: Sequence[str] = ()  # PostgreSQL's own defaults


class Database:
    """PostgreSQL with its files in `directory`. It listens on the bridge, and on a socket in `directory`."""

    def __init__(self, directory: Path, place: Place, settings: Sequence[str] = DURABLE) -> None:
        self._directory, self._place, self._settings = directory, place, settings

    @property
    def url(self) -> str:
        """For hosts. It has the password."""
        password = (self._directory / "password").read_text().strip()
        return f"postgresql://{NAME}:{password}@{self._place.services}:{DATABASE_PORT}/{NAME}"

    def execute(self, statement: str, database: str = NAME) -> list[tuple[object, ...]]:
        """By the socket, which no cut closes."""
        url = f"postgresql://{NAME}@/{database}?host={self._directory}&port={DATABASE_PORT}"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Makes its files first, where there are none. Does nothing when it runs and answers."""
        self._make()
        if not self._processes():
            # PostgreSQL takes a process that has their number for its own, which may be a zombie
            for left in (self._directory / "data" / "postmaster.pid", *self._directory.glob(".s.PGSQL.*")):
                left.unlink(missing_ok=True)
            self._launch()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.execute("SELECT 1", "postgres")
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise RuntimeError((self._directory / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{NAME}'", "postgres"):
            self.execute(f"CREATE DATABASE {NAME} ENCODING UTF8 TEMPLATE template0", "postgres")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Ends all connections. SIGQUIT: as after a crash; SIGINT: in order; SIGKILL: all processes at once."""
        if how is signal.SIGKILL:
            processes.end(self._processes)
            return
        with suppress(OSError, ValueError, IndexError):
            master = int((self._directory / "data" / "postmaster.pid").read_text().splitlines()[0])
            processes.send(how, [each for each in self._processes() if each.pid == master])
        deadline = time.monotonic() + READY_SECONDS
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        processes.end(self._processes)

    def restart(self, how: signal.Signals = signal.SIGQUIT) -> None:
        self.stop(how)
        self.start()

    def _make(self) -> None:
        made = self._directory / "made"
        if made.exists():
            return
        self.stop(signal.SIGKILL)
        shutil.rmtree(self._directory, ignore_errors=True)  # what a killed start has left
        self._directory.mkdir(mode=0o755, parents=True)
        postgres.make_data(self._directory, secrets.token_urlsafe())
        with (self._directory / "data" / "pg_hba.conf").open("a") as file:
            file.write(f"host all {NAME} {self._place.network} scram-sha-256\n")
        made.touch()

    def _launch(self) -> None:
        settings = (
            *(f"listen_addresses={self._place.services}", f"unix_socket_directories={self._directory}"),
            *("max_connections=300", *self._settings),
        )
        user = ["setpriv", f"--reuid={postgres.USER}", "--regid=nogroup", "--clear-groups"] if postgres.USER else []
        program = [str(postgres.installed() / "postgres"), "-D", str(self._directory / "data"), f"-p{DATABASE_PORT}"]
        launch([*user, *program, *(f"-c{each}" for each in settings)], self._directory / "log", {}, Path("/"))

    def _processes(self) -> list[Process]:
        data = self._directory / "data"
        return processes.running(lambda process: (process / "cwd").readlink() == data)


class ObjectStore:
    """SeaweedFS with its files in `directory`. It listens on the bridge."""

    def __init__(self, directory: Path, place: Place) -> None:
        self._directory, self._place = directory, place
        names = (*seaweed.PARTS, *(f"{part}.grpc" for part in seaweed.PARTS))
        first = place.archive_port
        numbers = iter(range(first + 1, first + ARCHIVE_PORTS))
        ports = {name: first if name == "s3" else next(numbers) for name in names}
        self._ports = {part: ports[part] for part in seaweed.PARTS}
        self._sockets = {name: port for name, port in ports.items() if name not in self._ports}

    @property
    def settings(self) -> dict[str, str]:
        """For hosts."""
        return {**self._server.environ, "BUNTIME_ARCHIVE": f"s3://{seaweed.BUCKET}/fleet"}

    def start(self) -> None:
        """Does nothing when it runs and answers."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._directory / "log"
        if not self._processes():
            command = seaweed.command(self._directory, self._place.services, self._ports, self._sockets)
            launch(command, log, seaweed.environment(self._directory), self._directory)
            time.sleep(0.1)  # until it is there
        seaweed.wait_until_ready(self._server, lambda: bool(self._processes()), log)

    def stop(self) -> None:
        processes.end(self._processes)
        seaweed.forget_sockets((*self._ports.values(), *self._sockets.values()))

    @property
    def _server(self) -> seaweed.Seaweed:
        return seaweed.at(self._place.services, self._place.archive_port)

    def _processes(self) -> list[Process]:
        wanted = f"-dir={self._directory}".encode()
        return processes.running(lambda process: wanted in (process / "cmdline").read_bytes().split(b"\0"))


def launch(command: Sequence[str], log: Path, environment: Mapping[str, str], directory: Path) -> None:
    """Starts a program that is nobody's child, so it outlives this process and leaves no zombie."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *command],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        )
