"""Two versions side by side: hosts of the first version with a fleet, which this one replaces one after another."""

import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import BUNTIME, Server
from tests.contracts.postgres import Server as Database
from tests.contracts.postgres import postgres
from tests.fleet.landed import CHECKOUT, FIRST_FLEET, checked_out
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres, pytest.mark.packages, pytest.mark.alone]

MB = 1 << 20
MOST_CREATES = 20
PAUSE_SECONDS = 1.0  # the old version gives up a session only in a pause that is as long as its archiving
PROGRAM = """
Bun.serve({ port: 3000, fetch: async (request) => new Response(request.method + (await request.bytes()).length) })
"""


@pytest.fixture(scope="module")
def old() -> Iterator[Path]:
    """A checkout of the old version."""
    with checked_out(FIRST_FLEET) as directory:
        yield directory


@pytest.fixture
def database() -> Iterator[Database]:
    with postgres(free_port()) as database:
        database.create("buntime")
        yield database


@pytest.fixture
def hosts(old: Path, database: Database, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """The first is of the old version, and made the tables. The second is of this one."""
    key = tmp_path / "master.key"
    key.touch(0o600)
    key.write_text(os.urandom(32).hex())
    shared = {
        "BUNTIME_STORE": database.address("buntime"),
        "BUNTIME_MASTER_KEY_FILE": str(key),
        "BUNTIME_ARCHIVE": str(tmp_path / "archive"),
    }
    with ExitStack() as stack:
        first, second = (stack.enter_context(fresh_server(1, alone=True)) for _ in range(2))
        first.program = old / ".venv/bin/buntime"
        for server in (first, second):
            server.settings |= shared
            server.start()
        yield first, second
        first.program = BUNTIME


def id_of(server: Server) -> str:
    return (server.config.data_dir / "host-id").read_text().strip()


def owner_of(session: Session, database: Database) -> str:
    ((host,),) = database.execute(f"SELECT host FROM sessions WHERE id = '{session.id}'", "buntime")
    return str(host)


def session_of(server: Server, client: Client, database: Database) -> Session:
    """The server has it: of equal hosts, the one that is asked keeps a new one."""
    for _ in range(MOST_CREATES):
        session = client.open(ttl=3600)
        if owner_of(session, database) == id_of(server):
            return session
        session.delete().done()
    raise AssertionError(f"{server.config.data_dir} keeps no new session")


def keeps_a_new_one(server: Server, client: Client, database: Database) -> bool:
    session = client.open(ttl=3600)
    kept = owner_of(session, database) == id_of(server)
    session.delete().done()
    return kept


def use(session: Session, server: Server, client: Client, name: str) -> None:
    """All kinds of requests for a session, through a host that may not have it."""
    through = Session(client, session.id)
    assert through.code("console.log(1)")["stdout"] == "1\n"
    through.write(name, "x" * 2 * MB).done()
    assert through.text(name) == "x" * 2 * MB
    content, target = os.urandom(5 * MB), f"/files/content?sessionId={session.id}&path=big-{name}"
    client.call("PUT", target, body=content).done()
    assert client.call("GET", target).body == content
    until(lambda: visit(session, server) == (200, b"POST5"), "the program to answer")


def visit(session: Session, server: Server) -> tuple[int, bytes]:
    name = f"{session.id.replace('_', '-')}-3000.localhost"
    with closing(http.client.HTTPConnection("127.0.0.1", server.config.port, timeout=30)) as connection:
        connection.request("POST", "/", b"12345", {"Host": f"{name}:{server.config.port}"})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Steady:
    """A client that uses sessions with short pauses, and counts what was not answered."""

    def __init__(self, client: Client, sessions: list[Session]) -> None:
        self._client, self._sessions, self._ended = client, sessions, threading.Event()
        self.answered, self.failed = 0, list[str]()
        self._thread = threading.Thread(target=self._use)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _use(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            for session in self._sessions:
                reply = self._client.execute(session.id, command="cat /workspace/kept")
                if reply.status == 200 and reply.json()["stdout"] == session.id:
                    self.answered += 1
                else:
                    self.failed.append(reply.shown())


def test_requests_are_carried_between_versions_and_a_drained_host_is_replaced(
    hosts: tuple[Server, Server], database: Database
) -> None:
    first, second = hosts
    key = first.cli("keys", "create", "--plan", "enterprise")
    before, after = first.client(key), second.client(key)
    mine = [session_of(server, client, database) for server, client in ((first, before), (second, after))]
    for session in mine:
        session.write("kept", session.id).done()
        session.patch(preview={"visibility": "public", "ports": [3000]}).done()
        session.client.call("POST", "/processes/start", json_body={"sessionId": session.id, "code": PROGRAM}).done()
        for server, client, name in ((first, before, "old"), (second, after, "new")):
            use(session, server, client, name)
    steady = Steady(after, mine)
    drained = second.cli("hosts", "drain", id_of(first), "--within", "0", "--wait")
    assert drained
    first.stop()
    first.program = BUNTIME
    first.start()
    second.cli("hosts", "resume", id_of(first))
    until(lambda: keeps_a_new_one(first, before, database), "the host to take sessions again")
    steady.end()
    assert steady.failed == []
    assert steady.answered > 0
    for session in mine:
        for client in (before, after):
            through = Session(client, session.id)
            assert through.text("kept") == session.id
            assert through.text("old") == through.text("new") == "x" * 2 * MB


def test_the_new_version_goes_on_with_what_the_old_one_has_on_its_disk(
    hosts: tuple[Server, Server], database: Database
) -> None:
    first, second = hosts
    key = first.cli("keys", "create")
    before, after = first.client(key), second.client(key)
    session = session_of(first, before, database)
    session.write("kept", session.id).done()
    snapshot = before.call("POST", f"/sessions/{session.id}/snapshots", json_body={}).done()["snapshotId"]
    first.stop()
    first.program = BUNTIME
    first.start()
    assert owner_of(session, database) == id_of(first)
    assert Session(after, session.id).text("kept") == session.id
    fork = after.open(snapshotId=snapshot)
    assert fork.text("kept") == session.id


def test_migrations_that_landed_have_not_changed(old: Path) -> None:
    stores = Path("src/buntime/stores")
    landed = sorted((old / stores).glob("*/sql/*.sql"))
    assert landed
    for file in landed:
        assert (CHECKOUT / file.relative_to(old)).read_bytes() == file.read_bytes(), file.name
