"""A server whose store is in PostgreSQL is a member of a fleet, also when it is alone."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.fleet.budget import BUDGET
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import BUNTIME, Server
from tests.contracts.postgres import Server as Database
from tests.contracts.postgres import postgres
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres]

COUNTING = "n=0; while :; do n=$((n + 1)); echo $n > /workspace/count; sleep 0.05; done"
LAPSED = BUDGET.lease + 1.0
ELSEWHERE = """
INSERT INTO hosts
VALUES ('hst_other', 1, 0, now() - interval '1 hour', {taken_over}, 'active', '127.0.0.1:1', '1', '{{}}')
ON CONFLICT (id) DO UPDATE SET taken_over = excluded.taken_over
"""


@pytest.fixture
def database() -> Iterator[Database]:
    with postgres(free_port()) as database:
        database.create("buntime")
        yield database


@pytest.fixture
def server(servers: Servers, database: Database) -> Server:
    return servers.start(BUNTIME_STORE=database.address("buntime"))


@pytest.fixture
def client(server: Server) -> Client:
    return server.client(server.cli("keys", "create"))


def count_of(session: Session) -> int:
    return int(session.text("count") or 0)


def start_counting(session: Session) -> None:
    start = {"sessionId": session.id, "command": COUNTING}
    session.client.call("POST", "/processes/start", json_body=start).done()
    until(lambda: session.read("count").status == 200, "the process to count")


def sleep_deep(session: Session) -> None:
    session.client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": "deep-sleep"}).done()


def ask(database: Database, statement: str) -> list[tuple[object, ...]]:
    return database.execute(statement, "buntime")


def processes_of(server: Server) -> list[int]:
    """The server's own and its watchdog's."""
    found = [server.pid]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"watchdog" in command and str(server.config.data_dir).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_fleet_of_one_serves_sessions(server: Server, client: Client, database: Database) -> None:
    session = client.open()
    session.write("kept", "kept").done()
    assert session.code("console.log(1)")["stdout"] == "1\n"
    sleep_deep(session)
    until(lambda: ask(database, "SELECT archived FROM sessions") == [(True,)], "the session to be archived")
    assert session.text("kept") == "kept"
    ((host, epoch),) = ask(database, "SELECT host, epoch FROM sessions")
    assert host == (server.config.data_dir / "host-id").read_text().strip()
    assert epoch == 1


@pytest.mark.parametrize("pause", [0.0, LAPSED], ids=["within the lease", "after the lease"])
def test_what_runs_goes_on_after_the_server_was_killed(server: Server, client: Client, pause: float) -> None:
    session = client.open()
    start_counting(session)
    server.kill()
    time.sleep(pause)
    server.start()
    now = count_of(session)
    assert now > 0
    until(lambda: count_of(session) > now, "the same process to go on")
    assert session.code("console.log(1)")["stdout"] == "1\n"


def test_sandboxes_are_frozen_once_the_lease_of_a_killed_server_is_over(server: Server, client: Client) -> None:
    session = client.open()
    start_counting(session)
    server.kill()
    time.sleep(LAPSED)
    volume = server.config.data_dir / "volumes"
    counts = [path for path in volume.rglob("count") if path.is_file()]
    assert counts
    before = [path.read_text() for path in counts]
    time.sleep(0.5)
    assert [path.read_text() for path in counts] == before
    server.start()
    until(lambda: count_of(session) > int(before[0]), "the process to go on")


def test_a_host_that_was_stopped_for_longer_than_its_lease_goes_on(server: Server, client: Client) -> None:
    session = client.open()
    start_counting(session)
    pids = processes_of(server)
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LAPSED)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)

    def answers() -> bool:
        try:
            return client.call("GET", f"/sessions/{session.id}", timeout=30).status == 200
        except OSError:
            return False

    until(answers, "the host to act again")
    now = count_of(session)
    until(lambda: count_of(session) > now, "the process to go on")


def test_a_sleeping_session_of_a_lost_host_wakes_here(server: Server, client: Client, database: Database) -> None:
    session = client.open()
    session.write("kept", "kept").done()
    sleep_deep(session)
    until(lambda: ask(database, "SELECT archived FROM sessions") == [(True,)], "the session to be archived")
    ask(database, ELSEWHERE.format(taken_over="false"))
    ask(database, "UPDATE sessions SET host = 'hst_other', changed = pg_current_xact_id()")
    session.read("kept").refused(503, "unavailable")
    until(lambda: ask(database, "SELECT taken_over FROM hosts WHERE id = 'hst_other'") == [(True,)], "the take-over")
    assert session.text("kept") == "kept"
    assert ask(database, "SELECT epoch FROM sessions") == [(2,)]


def test_a_session_that_was_awake_on_a_lost_host_goes_on_when_its_account_says_so(
    server: Server, client: Client, database: Database
) -> None:
    session = client.open()
    session.write("kept", "old").done()
    sleep_deep(session)
    until(lambda: ask(database, "SELECT archived FROM sessions") == [(True,)], "the session to be archived")
    session.write("kept", "new").done()
    server.kill()  # a host that acts knows its sessions without asking
    ask(database, ELSEWHERE.format(taken_over="true"))
    ask(database, "UPDATE sessions SET host = 'hst_other', changed = pg_current_xact_id()")
    server.start()
    lost = session.read("kept")
    lost.refused(503, "unavailable")
    assert lost.error["details"]["reason"] == "host_lost"
    recovered = client.call("POST", f"/sessions/{session.id}/recover").done()
    assert recovered["ageSeconds"] >= 0
    assert session.text("kept") == "old"
    ((host, epoch),) = ask(database, "SELECT host, epoch FROM sessions")
    assert host == (server.config.data_dir / "host-id").read_text().strip()
    assert epoch == 2
    assert len(ask(database, "SELECT volume FROM left_behind WHERE host = 'hst_other' AND changed")) == 1


def test_a_host_that_comes_back_keeps_aside_what_it_lost(server: Server, client: Client, database: Database) -> None:
    session = client.open()
    session.write("kept", "newest").done()
    start_counting(session)
    server.kill()
    mine = (server.config.data_dir / "host-id").read_text().strip()
    ask(database, ELSEWHERE.format(taken_over="false"))
    ask(
        database,
        "INSERT INTO left_behind SELECT volume, host, id, account, image, image_name, 1024, true FROM sessions",
    )
    ask(
        database,
        "UPDATE sessions SET host = 'hst_other', epoch = 2, version = version + 1, volume = 'volelsewhere',"
        " changed = pg_current_xact_id()",
    )
    server.start()
    until(
        lambda: ask(database, f"SELECT volume FROM left_behind WHERE host = '{mine}'") == [], "what was left to be kept"
    )
    ((snapshot, name),) = ask(database, "SELECT id, name FROM snapshots")
    assert name == "kept-aside"
    copy = client.open(snapshotId=snapshot)
    assert copy.text("kept") == "newest"


def test_purge_leaves_no_watchdog_and_no_fence(server: Server, client: Client) -> None:
    client.open()
    pids = processes_of(server)
    server.stop()
    time.sleep(LAPSED)
    server.cli("purge", "--yes")
    assert not server.config.lease_file.exists()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the watchdog to end")


def test_a_host_with_another_master_key_is_refused(server: Server, client: Client, tmp_path: Path) -> None:
    server.stop()
    key = server.config.data_dir / "master.key"
    own = key.read_text()
    key.write_text("0" * 64 + "\n")
    said = tmp_path / "said"
    with said.open("w") as file:  # the watchdog keeps it open
        refused = subprocess.run([BUNTIME, "serve"], env=server.environment, stderr=file, check=False, timeout=60)
    assert refused.returncode != 0
    assert "buntime: the master key is another one than that of the other hosts" in said.read_text()
    assert "Traceback" not in said.read_text()
    key.write_text(own)
    server.start()
    client.open()
