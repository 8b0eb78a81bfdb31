"""Two servers on one database: each answers for the sessions of both."""

import http.client
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.events import watch
from tests.acceptance.server import Server
from tests.contracts.postgres import Server as Database
from tests.contracts.postgres import postgres
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres]

MB = 1 << 20
PROGRAM = """
Bun.serve({ port: 3000, fetch: async (request) => new Response(request.method + (await request.bytes()).length) })
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres(free_port()) as database:
        database.create("buntime")
        yield database


@pytest.fixture(scope="module")
def hosts(database: Database) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        servers = Servers(stack)
        first, second = servers.make(), servers.make()
        key = first.config.data_dir.with_name(first.config.data_dir.name + ".key")
        archive = Path(f"{key}-archive")
        stack.callback(shutil.rmtree, archive, ignore_errors=True)
        stack.callback(key.unlink)
        key.touch(0o600)
        key.write_text(os.urandom(32).hex())
        for server in (first, second):
            server.settings |= {
                "BUNTIME_STORE": database.address("buntime"),
                "BUNTIME_MASTER_KEY_FILE": str(key),
                "BUNTIME_ARCHIVE": str(archive),
            }
            server.start()
        yield first, second


@pytest.fixture(scope="module")
def ours(hosts: tuple[Server, Server]) -> tuple[Client, Client]:
    key = hosts[0].cli("keys", "create")
    return hosts[0].client(key), hosts[1].client(key)


def host_of(session: Session, database: Database) -> str:
    ((host,),) = database.execute(f"SELECT host FROM sessions WHERE id = '{session.id}'", "buntime")
    return str(host)


def session_on(host: Server, key: str, database: Database) -> Session:
    """A new one that this host has."""
    wanted = (host.config.data_dir / "host-id").read_text().strip()
    while host_of(made := host.client(key).open(), database) != wanted:
        made.delete()
    return made


@pytest.fixture
def session(ours: tuple[Client, Client], hosts: tuple[Server, Server], database: Database) -> Iterator[Session]:
    """It is the first host's, and is used through the second."""
    made = session_on(hosts[0], str(ours[0].key), database)
    yield Session(ours[1], made.id)
    made.delete()


def test_the_other_host_runs_code_and_moves_files(session: Session, ours: tuple[Client, Client]) -> None:
    assert session.code("console.log(1)")["stdout"] == "1\n"
    session.write("a", "x" * 3 * MB).done()
    assert Session(ours[0], session.id).text("a") == "x" * 3 * MB
    content, target = os.urandom(20 * MB), f"/files/content?sessionId={session.id}&path=big"
    for sender, reader in (ours, ours[::-1]):
        sender.call("PUT", target, body=content).done()
        assert reader.call("GET", target).body == content


def test_a_run_with_an_idempotency_key_runs_once_whichever_host_gets_it(
    session: Session, ours: tuple[Client, Client]
) -> None:
    command = "echo x >> /workspace/runs; cat /workspace/runs"
    for client in (*ours, *ours):
        answer = client.execute(session.id, idempotency_key="once", command=command)
        assert answer.done()["stdout"] == "x\n"


def test_a_visitor_of_the_other_host_reaches_a_program(session: Session, hosts: tuple[Server, Server]) -> None:
    session.patch(preview={"visibility": "public", "ports": [3000]}).done()
    started = {"sessionId": session.id, "code": PROGRAM}
    session.client.call("POST", "/processes/start", json_body=started).done()

    def visit() -> tuple[int, bytes]:
        name = f"{session.id.replace('_', '-')}-3000.localhost"
        with closing(http.client.HTTPConnection("127.0.0.1", hosts[1].config.port, timeout=30)) as connection:
            connection.request("POST", "/", b"12345", {"Host": f"{name}:{hosts[1].config.port}"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    until(lambda: visit() == (200, b"POST5"), "the program to answer")


def test_a_session_is_deleted_through_the_other_host(ours: tuple[Client, Client]) -> None:
    made = ours[0].open()
    Session(ours[1], made.id).delete().done()
    made.look().refused(404, "session_not_found")


def test_a_key_with_a_small_limit_gets_exactly_that_over_both_hosts(hosts: tuple[Server, Server]) -> None:
    limit = 40
    account = hosts[0].cli("accounts", "create", "--plan", "free", f"--set=requests_per_minute={limit}")
    key = hosts[0].cli("keys", "create", "--account", account)
    clients = [host.client(key) for host in hosts]

    def burst() -> tuple[set[str], list[tuple[int, str]]]:
        """When the minutes of the answers end, with status and remaining requests of each."""
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda number: clients[number % 2].call("GET", "/account"), range(2 * limit)))
        seen = [(answer.status, answer.headers["x-ratelimit-remaining"]) for answer in answers]
        return {answer.headers["x-ratelimit-reset"] for answer in answers}, seen

    def in_one_minute() -> list[tuple[int, str]]:
        """Begins with a new minute, which the server's answer tells."""
        while True:
            answer = clients[0].call("GET", "/account")
            time.sleep(max(0.0, int(answer.headers["x-ratelimit-reset"]) - time.time()) + 0.5)
            ends, seen = burst()
            if len(ends) == 1:
                return seen

    seen = in_one_minute()
    assert Counter(status for status, _ in seen) == {200: limit, 429: limit}
    assert sorted(int(left) for status, left in seen if status == 200) == list(range(limit))
    assert {left for status, left in seen if status == 429} == {"0"}
    for client in clients:
        answer = client.call("GET", "/account")
        answer.refused(429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert not any("home_of_keys_away" in host.said() for host in hosts)  # they asked each other


def test_an_accounts_processes_and_streams_are_limited_over_both_hosts(
    hosts: tuple[Server, Server], database: Database
) -> None:
    numbers = ("processes_per_account=2", "streams_per_account=1", "sessions=20")
    account = hosts[0].cli("accounts", "create", "--plan", "paid", *(f"--set={number}" for number in numbers))
    key = hosts[0].cli("keys", "create", "--account", account)
    client = hosts[0].client(key)
    first, second = (session_on(host, key, database) for host in hosts)

    def start(session: Session) -> Reply:
        body = {"sessionId": session.id, "command": "sleep 1000"}
        return client.call("POST", "/processes/start", json_body=body)

    process = start(first).done()["processId"]
    start(second).done()
    for session in (first, second):
        details = start(session).refused(429, "resource_limit_exceeded")
        assert details == {"resource": "processes", "limit": 2, "scope": "account", "plan": "paid"}
    body = {"sessionId": first.id, "processId": process, "signal": "SIGKILL"}
    client.call("POST", "/processes/signal", json_body=body).done()
    until(lambda: start(second).status == 200, "the place to be free on the other host")
    start(first).refused(429, "resource_limit_exceeded")
    with watch(first) as watched:
        assert watched.status == 200
        for session in (first, second):
            with watch(session) as refused:
                details = refused.refusal().refused(429, "resource_limit_exceeded")
                assert (details["resource"], details["limit"], details["scope"]) == ("open streams", 1, "account")

    def opens() -> bool:
        with watch(second) as again:
            return again.status == 200

    until(opens, "the stream's place to be free")
    for session in (first, second):
        session.delete()
