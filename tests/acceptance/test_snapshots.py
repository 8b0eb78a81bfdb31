"""Snapshots, forks, restores and images of accounts, on real sandboxes."""

import itertools
import json
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from buntime.stores import store_file
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state
from tests.acceptance.test_archive import LOOK, TREE
from tests.waiting import until

pytestmark = pytest.mark.sandbox

WRITER = """
import { Database } from "bun:sqlite";
import { writeSync, openSync, fsyncSync } from "fs";
const db = new Database("/workspace/numbers.db");
db.run("PRAGMA journal_mode = MODE"); db.run("PRAGMA synchronous = FULL");
db.run("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY, filler BLOB)");
const done = openSync("/workspace/done", "a");
for (let n = 1; ; n++) {
  db.transaction(() => {
    for (let i = 0; i < 3; i++) db.run("INSERT INTO numbers VALUES (?, randomblob(2000))", [3 * n + i]);
  })();
  writeSync(done, `${n}\\n`); fsyncSync(done);
}
"""
CHECK = """
import sqlite3
db = sqlite3.connect("/workspace/numbers.db")
numbers = db.execute("SELECT max(n) / 3, count(*) % 3 FROM numbers").fetchone()
print(db.execute("PRAGMA integrity_check").fetchone()[0], numbers)
"""


WRITERS, LINES, SNAPSHOTS = 4, 5000, 100
LOOK_AT_FILES = f"({LOOK}) | grep -v '^/etc/resolv.conf '"  # a start of the server writes that one anew


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Starts a server with a pool. Tests must not stop it."""
    with fresh_server(pool_size=4) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


def take(session: Session, **fields: Any) -> str:
    return str(session.client.call("POST", f"/sessions/{session.id}/snapshots", json_body=fields).done()["snapshotId"])


def made_of(client: Client, snapshot: str, **fields: Any) -> Session:
    return Session(client, str(client.create(snapshotId=snapshot, **fields).done()["sessionId"]))


def fork(session: Session, **fields: Any) -> list[Session]:
    answer = session.client.call("POST", f"/sessions/{session.id}/fork", json_body=fields).done()
    return [Session(session.client, each["session"]["sessionId"]) for each in answer["sessions"]]


def restore(session: Session, snapshot: str) -> Reply:
    return session.client.call("POST", f"/sessions/{session.id}/restore", json_body={"snapshotId": snapshot})


def image_of(session: Session, name: str, **fields: Any) -> dict[str, Any]:
    body = {"name": name, "sessionId": session.id, **fields}
    return dict(session.client.call("POST", "/images/create", json_body=body).done())


def _awake(_: Server, session: Session) -> None:
    assert state(session) == "active"


def _idle(_: Server, session: Session) -> None:
    assert ask_to_sleep(session, "idle").done()["state"] == "idle"


def _asleep(_: Server, session: Session) -> None:
    deep_sleep(session)


@pytest.mark.parametrize("prepare", [_awake, _idle, _asleep])
def test_a_snapshot_has_all_that_the_session_had(
    server: Server, client: Client, prepare: Callable[[Server, Session], None]
) -> None:
    session = client.open()
    session.output(TREE)
    before = session.output(LOOK_AT_FILES)
    prepare(server, session)
    was = state(session)
    snapshot = take(session)
    assert state(session) == was
    assert made_of(client, snapshot).output(LOOK_AT_FILES) == before
    assert session.output(LOOK_AT_FILES) == before


def test_writes_of_the_moment_before_are_in_it_and_later_ones_are_not(client: Client) -> None:
    session = client.open()
    for number in range(5):
        session.output(f"rm -f new; head -c 30000000 /dev/zero | tr '\\0' {number} > big; echo {number} > small")
        snapshot = take(session)
        session.output("rm big; echo later > small; echo x > new")
        copied = made_of(client, snapshot)
        assert copied.output("cat small; tail -c 1 big; stat -c %s big; ls").split() == [
            f"{number}",
            f"{number}30000000",
            "big",
            "small",
        ]
        copied.delete().done()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_is_whole_in_every_snapshot_and_has_what_was_committed(client: Client, mode: str) -> None:
    session = client.open()
    session.write("writer.ts", WRITER.replace("MODE", mode)).done()
    session.write("/root/check.py", CHECK).done()
    body = {"sessionId": session.id, "command": "bun writer.ts"}
    client.call("POST", "/processes/start", json_body=body).done()
    until(lambda: session.output("wc -l < done || true").strip() not in ("", "0"), "the writer to begin")
    for _ in range(10):
        committed = int(session.output("tail -n 1 done"))
        copied = made_of(client, take(session))
        checked, numbers = copied.output("python3 /root/check.py").split(" ", 1)
        highest, rest = json.loads(numbers.replace("(", "[").replace(")", "]"))
        assert (checked, rest) == ("ok", 0)
        assert highest >= committed
        copied.delete().done()


def test_a_fork_has_files_and_nothing_else_of_its_source(client: Client) -> None:
    session = client.open(env={"A": "1"}, metadata={"a": 1})
    session.output("echo kept > file")
    session.code("globalThis.x = 1")
    context = client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"]
    body = {"sessionId": session.id, "command": "echo secret; sleep 1000"}
    client.call("POST", "/processes/start", json_body=body).done()
    for copied in fork(session, count=3):
        assert copied.output("cat file; echo $A; pgrep -c sleep || true").split() == ["kept", "1", "0"]
        found = client.call("GET", "/processes/list", query={"sessionId": copied.id}).done()
        assert found["processes"] == []
        found = client.call("GET", "/contexts/list", query={"sessionId": copied.id}).done()
        assert found["contexts"] == []
        refused = copied.execute(code="x", contextId=context)
        refused.refused(404, "context_not_found")
    assert client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["processes"] != []


def test_forks_and_sources_do_not_see_one_another(client: Client) -> None:
    session = client.open()
    session.output("seq 1000 > file; mkdir d; touch d/x")
    one, two = fork(session, count=2)
    session.output("echo source > file; rm -r d")
    one.output("echo one >> file; mv d e")
    assert two.output("tail -n 1 file; ls").split() == ["1000", "d", "file"]
    assert one.output("tail -n 1 file; ls").split() == ["one", "e", "file"]
    session.delete().done()
    assert two.output("cat file | wc -l").strip() == "1000"


def test_a_restore_brings_the_files_back_and_ends_processes(client: Client) -> None:
    session = client.open()
    session.output(TREE)
    before, snapshot = session.output(LOOK_AT_FILES), take(session)
    session.output("rm -rf closed open /etc/skel; echo new > new")
    body = {"sessionId": session.id, "command": "while true; do date > clock; sleep 0.05; done"}
    client.call("POST", "/processes/start", json_body=body).done()
    assert restore(session, snapshot).done()["state"] == "active"
    assert session.output(LOOK_AT_FILES) == before
    (kept,) = client.call("GET", "/snapshots", query={"sessionId": session.id, "name": "before-restore"}).done()[
        "snapshots"
    ]
    assert "new" in made_of(client, kept["snapshotId"]).output("ls").split()
    restore(session, kept["snapshotId"]).done()
    assert "new" in session.output("ls").split()


def started(session: Session) -> tuple[str, str]:
    """The ids of a process and a context that run in the session."""
    body = {"sessionId": session.id, "command": "echo said; sleep 1000"}
    process = session.client.call("POST", "/processes/start", json_body=body).done()["processId"]
    context = session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"]
    return str(process), str(context)


def listed(session: Session) -> tuple[dict[str, object], dict[str, object]]:
    """The status of each process and of each context, by id."""
    query = {"sessionId": session.id}
    processes = session.client.call("GET", "/processes/list", query=query).done()["processes"]
    contexts = session.client.call("GET", "/contexts/list", query=query).done()["contexts"]
    return (
        {each["processId"]: each["status"] for each in processes},
        {each["contextId"]: each["status"] for each in contexts},
    )


@pytest.mark.parametrize("asleep", [False, True])
def test_a_session_restored_to_the_files_of_another_one_lists_nothing_of_it(client: Client, asleep: bool) -> None:
    source, session = client.open(), client.open()
    _, context = started(source)
    snapshot = take(source)
    if asleep:
        deep_sleep(session)
    restore(session, snapshot).done()
    assert listed(session) == ({}, {})
    session.execute(code="x", contextId=context).refused(404, "context_not_found")
    process, context = started(session)
    deep_sleep(session)
    assert [list(each) for each in listed(session)] == [[process], [context]], "its own stay"
    assert listed(made_of(client, take(session))) == ({}, {})


def test_a_restore_to_files_of_its_own_lists_what_ran_then_as_lost(client: Client) -> None:
    session = client.open()
    process, context = started(session)
    snapshot = take(session)
    started(session)
    restore(session, snapshot).done()
    assert listed(session) == ({process: "lost"}, {context: "lost"})


def test_a_session_that_a_request_uses_is_not_restored(client: Client) -> None:
    session = client.open()
    snapshot = take(session)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.output, "touch started; sleep 5; echo done")
        until(lambda: session.output("ls started 2>/dev/null || true").strip() == "started", "the run to start")
        restore(session, snapshot).refused(409, "session_busy")
        assert running.result().strip() == "done"


def test_a_preview_goes_on_with_the_restored_files(client: Client) -> None:
    session = client.open(onWake="python3 -m http.server 8080 --directory /workspace > /dev/null 2>&1")
    session.output("echo first > page")
    snapshot = take(session)
    session.output("echo second > page")
    restore(session, snapshot).done()

    def page() -> bytes:
        host = f"{session.id.replace('_', '-')}.localhost"
        return Client(client.port, None).call("GET", "/page", headers={"Host": f"{host}:{client.port}"}).body

    until(lambda: page() == b"first\n", "the server of the restored session")


def test_snapshots_outlive_sessions_restarts_and_evictions(servers: Servers) -> None:
    server = servers.start(pool_size=1)
    client = server.new_client("enterprise")
    session = client.open()
    session.output(TREE)
    before, snapshot = session.output(LOOK_AT_FILES), take(session)
    image_of(session, "mine", env={"HELLO": "there"})
    session.delete().done()
    server.kill()
    server.start()
    assert made_of(client, snapshot).output(LOOK_AT_FILES) == before
    assert client.open(image="mine").output("echo $HELLO; cat closed/one").split() == ["there", "one"]
    until(lambda: not _unsaved(server), "the archive to have all layers")
    server.stop()
    layer = _layer_of(server, snapshot)
    volume = server.config.data_dir / "volumes" / layer
    subprocess.run(["btrfs", "-q", "subvolume", "delete", volume], check=True)
    server.start()
    assert made_of(client, snapshot).output(LOOK_AT_FILES) == before


def _unsaved(server: Server) -> list[str]:
    with closing(sqlite3.connect(store_file(server.config))) as store:
        return [row[0] for row in store.execute("SELECT id FROM layers WHERE saved IS NULL")]


def _layer_of(server: Server, snapshot: str) -> str:
    with closing(sqlite3.connect(store_file(server.config))) as store:
        return str(store.execute("SELECT layer FROM snapshots WHERE id = ?", [snapshot]).fetchone()[0])


def test_a_snapshot_beside_writes_of_the_api_has_each_file_whole(
    client: Client, rounds: Callable[[int, int], int]
) -> None:
    session, ended, acknowledged = client.open(), threading.Event(), [0] * WRITERS

    def upload(path: str, text: str) -> Reply:
        query = {"sessionId": session.id, "path": path}
        kind = {"Content-Type": "application/octet-stream"}
        return client.call("PUT", "/files/content", query=query, body=text.encode(), headers=kind)

    def execute(path: str, text: str) -> Reply:
        return session.execute(command="true", files=[{"path": path, "content": text}])

    ways = (session.write, upload, execute, session.write)

    def write(writer: int) -> None:
        for version in itertools.count(1):
            if ended.is_set():
                return
            ways[writer % len(ways)](f"/workspace/{writer}", f"{version}\n" * LINES).done()
            acknowledged[writer] = version

    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, writer) for writer in range(WRITERS)]
        try:
            until(lambda: all(acknowledged), "a first version of each file")
            taken = [(list(acknowledged), take(session)) for _ in range(rounds(SNAPSHOTS, 3))]
        finally:
            ended.set()
        for each in writing:
            each.result()
    for before, snapshot in taken:
        copy = made_of(client, snapshot)
        for writer, least in enumerate(before):
            lines = copy.text(f"/workspace/{writer}").splitlines()
            assert (len(set(lines)), len(lines)) == (1, LINES), f"{len(lines)} lines"
            assert int(lines[0]) >= least
        copy.delete().done()
