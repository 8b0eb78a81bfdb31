"""Two PostgreSQL servers on this machine of which one is a standby, under Patroni with etcd, all in one directory.

The settings are those of docs/operating-hosts.md.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg

from tests.contracts.postgres import USER, installed
from tests.fleet.lab import processes
from tests.fleet.lab.processes import Process
from tests.ports import free_port
from tests.waiting import until

NAME = "buntime"  # of the database, and its user
PASSWORD = "secret"  # noqa: S105 - of a database that only this machine reaches
START_SECONDS = 90.0
LIVENESS = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}  # seconds; Patroni allows no shorter ttl
SILENCE = 2  # seconds without an answer, after which the primary gives up its connection to a standby
SHARED = {
    **LIVENESS,
    "synchronous_mode": True,
    "postgresql": {
        "use_pg_rewind": True,
        "parameters": {
            "synchronous_commit": "on",
            "wal_sender_timeout": f"{SILENCE}s",
            "wal_log_hints": "on",
            "max_connections": 200,
        },
    },
}
ACCESS = [
    "local all all trust",
    "host all all 127.0.0.1/32 scram-sha-256",
    "host replication all 127.0.0.1/32 scram-sha-256",
]


class Node:
    """A PostgreSQL server, and the Patroni that starts, promotes and demotes it."""

    def __init__(self, directory: Path, name: str, etcd: int) -> None:
        self.name, self.port, self._rest = name, free_port(), free_port()
        self._directory, self._etcd = directory / name, etcd

    def start(self) -> None:
        self._directory.mkdir(exist_ok=True)
        file = self._directory / "patroni.json"  # JSON is YAML
        file.write_text(json.dumps(self._settings()))
        for path in (self._directory, file):
            _give(path)
        _launch(["/usr/bin/patroni", str(file)], self._directory)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """All processes of the node at once: Patroni first, so that it notices nothing."""
        processes.send_to_all(number, self.processes)

    def end(self) -> None:
        processes.end(self.processes)

    def processes(self) -> list[Process]:
        inside = str(self._directory)
        return processes.running(lambda process: str((process / "cwd").readlink()).startswith(inside))

    def cluster(self) -> Mapping[str, Mapping[str, Any]]:
        """All nodes as Patroni on this one sees them: name → role, state and more. Empty if it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self._rest}/cluster", timeout=2) as answer:
                return {each["name"]: each for each in json.load(answer)["members"]}
        except OSError:
            return {}

    def said(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-3000:]

    def _settings(self) -> Mapping[str, object]:
        login, rest = {"username": NAME, "password": PASSWORD}, f"127.0.0.1:{self._rest}"
        return {
            "scope": NAME,
            "name": self.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"127.0.0.1:{self._etcd}"},
            "bootstrap": {"dcs": SHARED, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth-local": "trust"}]},
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._directory / "data"),
                "bin_dir": str(installed()),
                "pgpass": str(self._directory / "pgpass"),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "pg_hba": ACCESS,
                "parameters": {"unix_socket_directories": str(self._directory)},
            },
        }


class Cluster:
    def __init__(self, directory: Path) -> None:
        self._directory, self._etcd = directory, free_port()
        self.nodes = [Node(directory, name, self._etcd) for name in ("first", "second")]

    @property
    def url(self) -> str:
        """For servers. It names both nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://{NAME}:{PASSWORD}@{hosts}/{NAME}?target_session_attrs=read-write"

    def start(self) -> None:
        """Returns when the first one leads, with a standby that has all that it acknowledges, and an empty database."""
        self._start_etcd()
        for node in self.nodes:
            node.start()
            until(lambda: self.leader() is not None, "a leader", START_SECONDS)
        self.wait_for_standby()
        with psycopg.connect(self.url.replace(f"/{NAME}?", "/postgres?"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {NAME} ENCODING UTF8 TEMPLATE template0")

    def leader(self) -> Node | None:
        """The one that Patroni holds for the leader, and that accepts changes."""
        for node in self.nodes:
            if node.cluster().get(node.name, {}).get("role") == "leader" and _accepts_changes(node):
                return node
        return None

    def wait_for_standby(self) -> None:
        """Until a commit waits for a standby."""

        def waits() -> bool:
            leader = self.leader()
            seen = leader.cluster().values() if leader else ()
            return any((each["role"], each["state"]) == ("sync_standby", "streaming") for each in seen)

        until(waits, "a synchronous standby", START_SECONDS)

    def mend(self) -> None:
        """Starts what is missing, and returns when commits wait for a standby again."""
        for node in self.nodes:
            processes.send(signal.SIGCONT, node.processes())
            if not node.processes():
                node.start()
        until(lambda: self.leader() is not None, "a leader", START_SECONDS)
        self.wait_for_standby()

    def end(self) -> None:
        for node in self.nodes:
            node.end()
        processes.end(self._etcd_processes)

    def _start_etcd(self) -> None:
        directory, peer = self._directory / "etcd", free_port()
        directory.mkdir()
        _give(directory)
        client, own = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{peer}"
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={own}"]
        cluster = [f"--initial-advertise-peer-urls={own}", f"--initial-cluster=default={own}"]
        _launch(["/usr/bin/etcd", f"--data-dir={directory}/data", *urls, *cluster], directory)

    def _etcd_processes(self) -> list[Process]:
        inside = self._directory / "etcd"
        return processes.running(lambda process: (process / "cwd").readlink() == inside)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Nothing of it survives the block."""
    directory = Path(tempfile.mkdtemp(prefix="buntime-patroni-", dir="/var/tmp"))
    _give(directory)
    made = Cluster(directory)
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(directory)


def _accepts_changes(node: Node) -> bool:
    url = f"postgresql://{NAME}:{PASSWORD}@127.0.0.1:{node.port}/postgres"
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    except psycopg.Error:
        return False


def _give(path: Path) -> None:
    if USER:
        shutil.chown(path, USER, "nogroup")


def _launch(command: Sequence[str], directory: Path) -> None:
    with (directory / "log").open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", *command],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(directory)},
            user=USER,
            group="nogroup" if USER else None,
            extra_groups=() if USER else None,
        )
