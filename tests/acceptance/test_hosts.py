"""Two hosts with one store: one of them drains, stops and is removed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    with postgres(free_port()) as database:
        database.create("buntime")
        yield database


@pytest.fixture
def hosts(servers: Servers, database: Database, tmp_path: Path) -> tuple[Server, Server]:
    shared = {
        "BUNTIME_STORE": database.address("buntime"),
        "BUNTIME_ARCHIVE": str(tmp_path / "archive"),
        "BUNTIME_MASTER_KEY_FILE": str(tmp_path / "master.key"),
    }
    return servers.start(pool_size=1, **shared), servers.start(pool_size=1, **shared)


def id_of(server: Server) -> str:
    return (server.config.data_dir / "host-id").read_text().strip()


def listed(server: Server, host: Server) -> dict[str, Any]:
    """The host as the command line of a server shows it."""
    told = json.loads(server.cli("hosts", "list", "--json"))
    (found,) = (one for one in told["hosts"] if one["hostId"] == id_of(host))
    return dict(found)


def test_a_drained_host_ends_without_sessions_and_another_host_has_their_files(hosts: tuple[Server, Server]) -> None:
    first, second = hosts
    key = first.cli("keys", "create")
    client, other = first.client(key), second.client(key)
    until(lambda: listed(second, first)["load"] is not None, "a report")
    sessions = [client.open() for _ in range(3)]
    for session in sessions:
        session.write("kept", session.id).done()
    for session, depth in zip(sessions, ("deep-sleep", "idle"), strict=False):
        client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": depth}).done()
    said = json.loads(first.cli("hosts", "drain", "here", "--within", "0", "--wait", "--json"))
    assert (said["id"], said["sessions"]) == (id_of(first), 0)
    assert listed(second, first)["state"] == "draining"
    assert json.loads(second.cli("hosts", "list", "--json"))["nobody"]["deepSleep"] == 3
    for session in sessions:
        read = other.call("GET", f"/files/read?sessionId={session.id}&path=kept", timeout=60).done()
        assert read["content"] == session.id
    assert listed(second, second)["sessions"]["active"] == 3
    first.stop()
    until(lambda: listed(second, first)["state"] == "left", "the host to have left")
    second.cli("hosts", "remove", id_of(first))
    first.start()
    again = listed(second, first)
    assert (again["state"], again["draining"]) == ("active", False)
    assert _operators(second, key)


def _operators(server: Server, key: str) -> bool:
    """Whether an operator's key gets the same list by the API, and an account's none."""
    operator = server.client(server.cli("keys", "create", "--scope", "operator", "--name", "operator"))
    told = operator.call("GET", "/hosts").done()["hosts"]
    Client(server.config.port, key).call("GET", "/hosts").refused(403, "forbidden")
    return len(told) == 2
