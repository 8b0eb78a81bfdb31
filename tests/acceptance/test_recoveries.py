"""A session whose volume is lost goes on from its last checkpoint when its account asks for it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.leftovers import wait_until_tidy
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, evict, state, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox

OFTEN = {"sleepPolicy": {"checkpointEvery": 5}}
BIG = "head -c 40M /dev/urandom > big"  # enough for a parent


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.start(pool_size=0, **EVICTING)


@pytest.fixture
def session(server: Server) -> Iterator[Session]:
    session = server.new_client().open(**OFTEN)
    yield session
    session.delete().done()
    archive = server.config.data_dir / "archive"
    wait_until_tidy(server.config, lambda: {str(path.relative_to(archive)) for path in traces.objects(archive, "")})


def recover(session: Session, key: str | None = None) -> Reply:
    headers = {"Idempotency-Key": key} if key else {}
    return session.client.call("POST", f"/sessions/{session.id}/recover", headers=headers)


def archived(server: Server, session: Session) -> list[Path]:
    return traces.objects(server.config.data_dir / "archive", session.id)


def checkpoint(session: Session) -> str:
    """Waits for a checkpoint of all that was written before. Returns its time."""
    at = session.look().done()["checkpointedAt"]
    session.output("date > now")
    until(lambda: session.look().done()["checkpointedAt"] != at, "a checkpoint")
    return str(session.look().done()["checkpointedAt"])


@pytest.mark.parametrize("started", [False, True], ids=["while the server runs", "before a start"])
def test_a_lost_session_goes_on_from_its_checkpoint(server: Server, session: Session, started: bool) -> None:
    session.output(BIG)
    evict(server, session)
    session.write("file", "one").done()
    body = {"sessionId": session.id, "command": "sleep 200000"}
    process = session.client.call("POST", "/processes/start", json_body=body).done()["processId"]
    at = checkpoint(session)
    objects = set(archived(server, session))
    session.write("file", "two").done()
    if started:
        server.stop()
    traces.lose_volume(server.config, session.id)
    if started:
        server.start()
    lost = session.execute(command="cat file").refused(409, "invalid_state")
    assert (lost["reason"], lost["recoverable"]) == ("volume_lost", True)
    key = str(uuid4())
    told = recover(session, key).done()
    assert (told["sessionId"], told["state"], told["recoveredFrom"]) == (session.id, "deep-sleep", at)
    assert told["ageSeconds"] >= lost["ageSeconds"]
    assert state(session) == "deep-sleep"
    assert set(archived(server, session)) >= objects
    assert session.output("cat file; stat -c %s big; pgrep -x -c sleep || true") == f"one{40 << 20}\n0\n"
    listed = session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["processes"]
    assert {each["processId"]: each["status"] for each in listed}[process] == "lost"
    assert recover(session, key).done() == told
    assert recover(session).refused(409, "invalid_state") == {"reason": "not_lost"}


def test_it_is_archived_by_increments_as_before(server: Server, session: Session) -> None:
    session.output(f"{BIG}; echo one > file")
    checkpoint(session)
    traces.lose_volume(server.config, session.id)
    recover(session).done()
    wake(session).done()
    before = set(archived(server, session))
    session.output("echo two > file")
    checkpoint(session)
    until(lambda: set(archived(server, session)) - before, "an object")
    added = set(archived(server, session)) - before
    assert max(path.stat().st_size for path in added) < 8_000_000
    traces.lose_volume(server.config, session.id)
    recover(session).done()
    assert session.output("cat file; stat -c %s big") == f"two\n{40 << 20}\n"
    session.output("echo three > file")
    evict(server, session)
    assert session.output("cat file; stat -c %s big") == f"three\n{40 << 20}\n"


def test_a_volume_that_comes_back_later_is_removed_at_the_next_start(server: Server, session: Session) -> None:
    session.write("file", "one").done()
    checkpoint(session)
    session.write("file", "two").done()
    volumes, other = server.config.data_dir / "volumes", session.client.open()
    lost = volumes / traces.volume_of(server.config, session.id)
    away = volumes / traces.volume_of(server.config, other.id) / "away"  # a place that the start leaves alone
    traces.kill_sandbox(server.config, session.id)
    server.stop()
    lost.rename(away)
    server.start()
    recover(session).done()
    assert session.text("file") == "one"
    server.stop()
    away.rename(lost)
    server.start()
    assert session.text("file") == "one"
    assert lost.name not in traces.volumes(server.config)
    assert any("orphans_removed" in line and lost.name in line for line in server.said().splitlines())
    assert any("session_recovered" in line and lost.name in line for line in server.said().splitlines())
    other.delete().done()


def test_a_session_of_which_nothing_was_archived_stays_lost(server: Server, session: Session) -> None:
    session.patch(sleepPolicy={"checkpointEvery": "never"}).done()
    assert not archived(server, session)
    traces.lose_volume(server.config, session.id)
    nothing = {"reason": "volume_lost", "recoverable": False}
    assert session.execute(command="true").refused(409, "invalid_state") == nothing
    assert recover(session).refused(409, "invalid_state") == nothing
