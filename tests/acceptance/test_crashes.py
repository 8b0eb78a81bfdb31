"""The server is killed at each named step of its work and started again: nothing is lost, doubled or left over."""

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

import pytest

from buntime.daemon import steps
from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.crashing_server import named_steps
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, evict, state, wait_until_evicted, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox

CRASHING = Path(__file__).with_name("crashing_server.py")
MAKE = [step for step in steps.CREATE if step.startswith("make: ")]
CLAIM = [step for step in steps.CREATE if step not in MAKE]
REMOVE = [step for step in steps.DELETE if step.startswith("remove: ")]


@dataclass(frozen=True, slots=True)
class History:
    """A server with a long acknowledged session that must survive every crash."""

    server: Server
    client: Client
    old: Session
    sleeper: str  # the background process's pid inside the session
    key: str
    answer: bytes  # the first answer to the idempotency key

    def is_as_before(self) -> None:
        assert self.old.text("kept") == "kept"
        assert self.old.output("pgrep -x sleep").strip() == self.sleeper
        again = self.client.create(idempotency_key=self.key)
        assert (again.body, again.headers["idempotent-replayed"]) == (self.answer, "true")
        mine = self.client.call("GET", "/sessions").done()
        assert [entry["sessionId"] for entry in mine["sessions"]] == [self.old.id]
        traces.wait_until_whole(self.server.config, 1, self.server.parked)
        until(lambda: not traces.objects(self._archive, ""), "the archive to be empty")

    def objects(self, session: Session) -> list[str]:
        """Returns the names of the session's objects in the archive."""
        return [str(path.relative_to(self._archive)) for path in traces.objects(self._archive, session.id)]

    def named(self, session: Session) -> set[str]:
        """Returns the objects that the store names."""
        file = self.server.config.data_dir / "buntime.db"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
            asked = "SELECT snapshot, previous FROM sessions WHERE id = ?"
            snapshots = store.execute(asked, [session.id]).fetchone()
        return {json.loads(snapshot)["name"] for snapshot in snapshots if snapshot is not None}

    def crash(self, step: str, act: Callable[[], Reply], *, pool_size: int = 0, cache_gb: int = -1) -> Reply | None:
        """Starts a server that dies at the step, acts, and waits for its death. Returns the answer if there was one."""
        server = self.server
        server.stop()
        server.settings |= {"BUNTIME_POOL_SIZE": str(pool_size), "BUNTIME_CACHE_GB": str(cache_gb)}
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
        """Starts a server that dies at the step while it recovers."""
        self._armed.touch()
        self.server.launch((sys.executable, CRASHING, step, self._armed))
        self._dies_at(step)

    def _dies_at(self, step: str) -> None:
        assert self.server.wait_end() == -signal.SIGKILL, f"{step} was not reached"
        self._armed.unlink()

    @property
    def _archive(self) -> Path:
        return self.server.config.data_dir / "archive"

    @property
    def _armed(self) -> Path:
        return self.server.log.with_name("armed")


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with fresh_server(pool_size=0) as server:
        server.settings["BUNTIME_TICK_MS"] = "50"
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
    deep_sleep(session)  # so that it has a snapshot in the archive
    session.output("echo x > file; sleep 200000 &")
    reply = history.crash(step, session.delete)
    history.server.start()
    assert reply is None or reply.status == 200
    session.look().refused(404, "session_not_found")
    session.delete().refused(404, "session_not_found")
    history.is_as_before()


@pytest.mark.parametrize(("step", "pool_size"), [*((step, 0) for step in MAKE), *((step, 1) for step in steps.ATTACH)])
def test_a_new_start_of_a_sandbox_loses_nothing(history: History, step: str, pool_size: int) -> None:
    session = history.client.open()
    session.write("file", "kept").done()

    def run() -> Reply:
        traces.kill_sandbox(history.server.config, session.id)
        return session.execute(command="cat file")

    assert history.crash(step, run, pool_size=pool_size) is None
    history.server.start()
    assert session.output("cat file") == "kept"
    session.delete().done()
    history.is_as_before()


ON_AN_IMAGE = [
    *((step, 0) for step in MAKE),
    *((step, 1) for step in (*steps.ATTACH, "create: claimed", "create: stored")),
]


@pytest.mark.parametrize(("step", "pool_size"), ON_AN_IMAGE)
def test_a_create_on_an_added_image_is_whole_or_not_at_all(
    history: History, tmp_path: Path, step: str, pool_size: int
) -> None:
    (tmp_path / "etc").mkdir()
    history.server.cli("images", "add", "small", str(tmp_path))
    key = str(uuid4())
    made = history.crash(step, lambda: history.client.create(image="small", idempotency_key=key), pool_size=pool_size)
    assert made is None
    history.server.start()
    session = Session(history.client, history.client.create(image="small", idempotency_key=key).done()["sessionId"])
    assert session.code("console.log(1)")["stdout"] == "1\n"
    assert session.look().done()["image"] == "small"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", REMOVE)
def test_clearing_up_after_a_crash_may_crash_too(history: History, step: str) -> None:
    assert history.crash("create: claimed", history.client.create) is None
    history.crash_in_recovery(step)
    history.server.start()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SUSPEND)
def test_a_suspension_is_whole_or_not_begun(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()
    session.output("sleep 200000 &")
    assert history.crash(step, lambda: ask_to_sleep(session, "idle")) is None
    history.server.start()
    assert state(session) == "idle"
    assert session.output("cat file; pgrep -x -c sleep") == "kept1\n"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SLEEP)
def test_a_deep_sleep_is_whole_or_not_begun(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()
    session.output("sleep 200000 &")
    assert history.crash(step, lambda: ask_to_sleep(session)) is None
    history.server.start()
    assert state(session) == ("active" if step == "sleep: quiet" else "deep-sleep")
    if step != "sleep: quiet":
        traces.wait_until_given_back(history.server.config, session.id)
    assert session.text("file") == "kept"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", [*steps.ARCHIVE, *steps.EVICT])
def test_a_sleeper_gets_into_the_archive_in_the_end_and_leaves_nothing_else_there(history: History, step: str) -> None:
    session = history.client.open()
    if step != "archive: key stored":  # the key is stored only once
        session.write("file", "one").done()
        deep_sleep(session)
    session.write("file", "two").done()
    reply = history.crash(step, lambda: ask_to_sleep(session), cache_gb=0)
    assert reply is None or reply.done()["state"] == "deep-sleep"
    history.server.start()
    assert state(session) == "deep-sleep"
    wait_until_evicted(history.server, session)
    until(lambda: set(history.objects(session)) == history.named(session), "the archive to match the store")
    assert session.text("file") == "two"
    session.write("file", "three").done()
    evict(history.server, session)
    assert set(history.objects(session)) == history.named(session)
    assert session.text("file") == "three"
    session.delete().done()
    history.is_as_before()


AWAKE = [step for step in steps.WAKE if step.startswith("wake: ")]
WAKES = [
    *((step, 0, 0) for step in steps.WAKE),
    *((step, -1, 0) for step in AWAKE),
    *((step, -1, 1) for step in (*steps.ATTACH, *AWAKE)),
]


@pytest.mark.parametrize(("step", "cache_gb", "pool_size"), WAKES)
def test_a_wake_is_whole_or_begins_again(history: History, step: str, cache_gb: int, pool_size: int) -> None:
    session = history.client.open()
    session.output("echo kept > file; rm /etc/motd")
    deep_sleep(session)

    def wake_it() -> Reply:
        if cache_gb == 0:
            wait_until_evicted(history.server, session)
        return wake(session)

    assert history.crash(step, wake_it, cache_gb=cache_gb, pool_size=pool_size) is None
    history.server.start()
    assert state(session) == ("active" if step == "wake: stored" else "deep-sleep")
    assert not traces.restoring(history.server.config)
    assert session.output("cat file; ls /etc/motd 2>&1 | grep -c cannot") == "kept\n1\n"
    deep_sleep(session)
    assert set(history.objects(session)) == history.named(session)
    session.delete().done()
    history.is_as_before()


def test_every_step_that_is_named_is_one_at_which_a_server_is_killed_here() -> None:
    at_create, down = (*steps.CREATE, *steps.DELETE), (*steps.SUSPEND, *steps.SLEEP, *steps.ARCHIVE, *steps.EVICT)
    assert {*at_create, *down, *steps.ATTACH, *steps.WAKE} == set(named_steps())
