"""The server is killed at each named step of its work and started again: nothing is lost, doubled or left over."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

import pytest

from buntime import steps
from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

CRASHING = Path(__file__).with_name("crashing_server.py")
MAKE = [step for step in steps.CREATE if step.startswith("make: ")]
CLAIM = [step for step in steps.CREATE if step not in MAKE]
REMOVE = [step for step in steps.DELETE if step.startswith("remove: ")]


@dataclass(frozen=True, slots=True)
class History:
    """A server with a session that was acknowledged long ago and must outlive everything here."""

    server: Server
    client: Client
    old: Session
    sleeper: str  # pid inside the session of its background process
    key: str
    answer: bytes  # first answer to the key

    def is_as_before(self) -> None:
        assert self.old.text("kept") == "kept"
        assert self.old.output("pgrep -x sleep").strip() == self.sleeper
        again = self.client.create(idempotency_key=self.key)
        assert (again.body, again.headers["idempotent-replayed"]) == (self.answer, "true")
        mine = self.client.call("GET", "/sessions").done()
        assert [entry["sessionId"] for entry in mine["sessions"]] == [self.old.id]
        traces.wait_until_whole(self.server.config, 1 + self.server.parked())

    def crash(self, step: str, act: Callable[[], Reply], *, pool_size: int = 0) -> Reply | None:
        """Starts a server that dies at the step, acts and sees it die; what was answered before."""
        server = self.server
        server.stop()
        server.settings["BUNTIME_POOL_SIZE"] = str(pool_size)
        server.start((sys.executable, CRASHING, step, self._armed))
        while server.parked() < pool_size:
            time.sleep(0.02)
        self._armed.touch()
        reply = None
        with suppress(OSError, HTTPException):
            reply = act()
        self._dies_at(step)
        return reply if reply is not None and reply.status < 500 else None

    def crash_in_recovery(self, step: str) -> None:
        """The server that ought to clear up dies at the step."""
        self._armed.touch()
        self.server.launch((sys.executable, CRASHING, step, self._armed))
        self._dies_at(step)

    def _dies_at(self, step: str) -> None:
        assert self.server.wait_end() == -signal.SIGKILL, f"{step} was not passed"
        self._armed.unlink()

    @property
    def _armed(self) -> Path:
        return self.server.log.with_name("armed")


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with fresh_server(pool_size=0) as server:
        server.start()
        client, key = server.new_client("enterprise"), str(uuid4())
        first = client.create(idempotency_key=key)
        old = Session(client, first.done()["sessionId"])
        old.write("kept", "kept").done()
        old.output("sleep 100000 &")
        yield History(server, client, old, old.output("pgrep -x sleep").strip(), key, first.body)


@pytest.mark.parametrize(("step", "pool_size"), [*((step, 0) for step in steps.CREATE), *((step, 1) for step in CLAIM)])
def test_a_create_is_whole_or_undone(history: History, step: str, pool_size: int) -> None:
    key, mark = str(uuid4()), str(uuid4())

    def create() -> Reply:
        return history.client.create(idempotency_key=key, metadata={"mark": mark})

    assert history.crash(step, create, pool_size=pool_size) is None
    history.server.start()
    listed = history.client.call("GET", "/sessions", query={"metadata.mark": mark}).done()["sessions"]
    assert len(listed) == (1 if step == "create: stored" else 0)
    again = create()
    session = Session(history.client, again.done()["sessionId"])
    assert again.headers.get("idempotent-replayed") == ("true" if listed else None)
    assert not listed or listed[0]["sessionId"] == session.id
    assert history.client.call("GET", "/sessions", query={"metadata.mark": mark}).done()["total"] == 1
    assert session.output("pwd; ls -A") == "/workspace\n"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.DELETE)
def test_a_delete_is_finished(history: History, step: str) -> None:
    session = history.client.open()
    session.output("echo x > file; sleep 200000 &")
    reply = history.crash(step, session.delete)
    history.server.start()
    assert reply is None or reply.status == 200
    session.look().refused(404, "session_not_found")
    session.delete().refused(404, "session_not_found")
    history.is_as_before()


@pytest.mark.parametrize("step", MAKE)
def test_a_new_start_of_a_sandbox_loses_nothing(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()

    def run() -> Reply:
        traces.kill_sandbox(history.server.config, session.id)
        return session.execute(command="cat file")

    assert history.crash(step, run) is None
    history.server.start()
    assert session.output("cat file") == "kept"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", REMOVE)
def test_clearing_up_after_a_crash_may_crash_too(history: History, step: str) -> None:
    assert history.crash("create: claimed", history.client.create) is None
    history.crash_in_recovery(step)
    history.server.start()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SLEEP)
def test_a_deep_sleep_is_whole_or_not_begun(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()
    session.output("sleep 200000 &")

    def sleep() -> Reply:
        return history.client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": "deep-sleep"})

    assert history.crash(step, sleep) is None
    history.server.start()
    state = session.look().done()["state"]
    assert state == ("active" if step == "sleep: quiet" else "deep-sleep")
    if state == "deep-sleep":
        traces.wait_until_given_back(history.server.config, session.id)
    assert session.text("file") == "kept"
    session.delete().done()
    history.is_as_before()
