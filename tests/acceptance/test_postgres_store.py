"""A server whose store is in PostgreSQL, as a user starts it."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.client import Client
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.contracts.postgres import Server as Database
from tests.contracts.postgres import postgres
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres]


@pytest.fixture
def database() -> Iterator[Database]:
    with postgres(free_port(), settings=()) as database:
        database.create("buntime")
        yield database


@pytest.fixture
def server(servers: Servers, database: Database) -> Server:
    return servers.start(BUNTIME_STORE=database.address("buntime"))


def with_secret(what: str, database: Database) -> set[int]:
    """Processes whose file of this name in /proc has the address of the database with its password."""
    secret = database.address("").encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if secret in (process / what).read_bytes():
                found.add(int(process.name))
    return found


def client_of(server: Server) -> Client:
    return server.client(server.cli("keys", "create"))


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_sessions_keys_and_answers_are_in_the_database(server: Server, end: str) -> None:
    client = client_of(server)
    session = client.open()
    session.write("kept", "kept").done()
    server.stop(signal.Signals[end])
    assert not (server.config.data_dir / "buntime.db").exists()
    server.start()
    assert session.text("kept") == "kept"
    assert [one["id"] for one in json.loads(server.cli("keys", "list", "--json"))]


def test_a_database_that_is_away_is_503_and_sessions_go_on_when_it_is_back(server: Server, database: Database) -> None:
    client = client_of(server)
    session = client.open()
    session.write("kept", "kept").done()
    database.stop()
    began = time.monotonic()
    assert client.status("/sessions") in (503, None)
    assert time.monotonic() - began < 30
    database.start()
    until(lambda: client.status("/sessions") == 200, "the database to be back")
    assert session.text("kept") == "kept"


def test_the_password_is_told_to_nobody(server: Server, database: Database) -> None:
    client_of(server)
    assert with_secret("cmdline", database) == set()
    assert with_secret("environ", database) == {server.pid}
    database.stop()
    refused = server.run_cli("keys", "list")
    assert refused.returncode != 0
    assert "cannot be reached" in refused.stderr
    assert "secret@" not in refused.stdout + refused.stderr + server.said()


def test_no_child_gets_a_password_of_the_environment(servers: Servers, database: Database) -> None:
    url = database.address("buntime").replace(":secret@", "@")
    client_of(servers.start(BUNTIME_STORE=url, PGPASSWORD="secret")).open()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"PGPASSWORD=secret" in (process / "environ").read_bytes():
                found.add(process.name)
    assert len(found) == 1


def test_doctor_looks_at_the_database(server: Server, database: Database) -> None:
    assert "the database of BUNTIME_STORE" in server.run_cli("doctor").stdout
    database.stop()
    assert "cannot be reached" in server.run_cli("doctor").stdout


def test_a_store_moves_while_sandboxes_run(servers: Servers, database: Database) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.write("kept", "kept").done()
    pid = session.sleeper()
    server.settings["BUNTIME_STORE"] = database.address("buntime")
    refused = server.run_cli("store", "move")
    assert refused.returncode != 0
    assert "another server uses" in refused.stderr
    server.stop()
    assert "buntime store move" in server.run_cli("serve").stderr, "not with an empty database"
    assert "rows are in" in server.cli("store", "move")
    url = server.settings.pop("BUNTIME_STORE")
    assert "set BUNTIME_STORE" in server.run_cli("serve").stderr, "nor with an empty file"
    server.settings["BUNTIME_STORE"] = url
    server.start()
    assert (session.text("kept"), session.output("pgrep -x sleep").strip()) == ("kept", pid)
