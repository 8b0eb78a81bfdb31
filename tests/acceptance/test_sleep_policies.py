"""Sessions with sleep policies of their own, on real sandboxes: what keeps them awake is what the kernel counted."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import state
from tests.waiting import until

pytestmark = pytest.mark.sandbox

IDLE_AFTER = 6  # seconds
SLEEPY = {"idleAfter": IDLE_AFTER, "awakeWhile": "processes"}
SERVER_OF_PAGES = "Bun.serve({ port: 8080, fetch: () => new Response('page') })"
PLANS = """
[roomy]
sessions = 20
longest_ttl = "never"
shortest_ttl = 1
may_set_limits = true
requests_per_minute = 10000
file_mb = 10
files_per_request = 100
body_mb = 8
idle_after_most = "never"
deep_sleep_after_most = "never"
may_await_processes = true
default = { memory = 512, cpu = 0.5, timeout = 30, disk = 256 }
most = { memory = 1024, cpu = 1.0, timeout = 60, disk = 512 }
"""


@dataclass(frozen=True)
class Place:
    server: Server
    client: Client


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(fresh_server(2))
        plans = server.config.data_dir.with_name("plans.toml")
        plans.write_text(PLANS)
        server.settings |= {"BUNTIME_PLANS": str(plans), "BUNTIME_TICK_MS": "200"}
        server.start()
        yield Place(server, server.new_client("roomy"))


def background(session: Session, command: str) -> None:
    """Starts a process that goes on when the request has ended."""
    body = {"sessionId": session.id, "command": command}
    assert session.client.call("POST", "/processes/start", json_body=body).done()["status"] == "running"


def stays_awake(*sessions: Session, seconds: float) -> None:
    """Asserts that none of them is suspended for this long. Looking at a session is not activity."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert [state(session) for session in sessions] == ["active"] * len(sessions)
        time.sleep(0.5)


def test_what_works_stays_awake_and_what_waits_sleeps(place: Place) -> None:
    """All at once, since each takes as long as the others together."""
    busy, plain, served, sleeping, quiet = (
        place.client.open(sleepPolicy=policy) for policy in (SLEEPY, {"idleAfter": IDLE_AFTER}, SLEEPY, SLEEPY, SLEEPY)
    )
    service = {"name": "web", "command": "python3 -m http.server 8080"}
    declared = place.client.open(sleepPolicy=SLEEPY, services=[service])
    served.write("server.ts", SERVER_OF_PAGES).done()
    background(served, "bun run server.ts")
    served.output("curl -sS --retry 50 --retry-connrefused --retry-delay 0 localhost:8080")
    background(sleeping, "sleep 1000")
    for looping in (busy, plain):
        background(looping, "while :; do :; done")
    others = (plain, served, sleeping, quiet, declared)
    until(lambda: [state(each) for each in others] == ["idle"] * len(others), "the others to sleep")
    stays_awake(busy, seconds=3 * IDLE_AFTER)
    busy.output("pkill -f '[w]hile :'; true")
    until(lambda: state(busy) == "idle", "the session to sleep when its work has ended")
    assert served.output("curl -sS localhost:8080") == "page", "a request finds its server again"


def test_work_in_short_bursts_keeps_a_session_awake(place: Place) -> None:
    session = place.client.open(sleepPolicy=SLEEPY)
    background(session, "while :; do timeout 0.3 sh -c 'while :; do :; done'; sleep 1; done")
    stays_awake(session, seconds=4 * IDLE_AFTER)


def test_a_working_session_stays_awake_over_a_restart_of_the_server(place: Place) -> None:
    session, idle = place.client.open(sleepPolicy=SLEEPY), place.client.open(sleepPolicy=SLEEPY)
    background(session, "while :; do :; done")
    background(idle, "sleep 1000")
    place.server.kill()
    time.sleep(IDLE_AFTER + 1)
    place.server.start()
    stays_awake(session, seconds=2 * IDLE_AFTER)
    until(lambda: state(idle) == "idle", "the one that rests to sleep")


def test_looking_at_a_session_often_does_not_keep_it_awake(place: Place) -> None:
    session = place.client.open(sleepPolicy=SLEEPY)
    session.output("seq 2000 | xargs -I% touch /workspace/%")
    background(session, "sleep 1000")
    until(lambda: state(session) == "idle", "it to sleep while it is looked at")


def test_a_session_without_an_end_outlives_restarts(place: Place) -> None:
    session = place.client.open(ttl="never")
    brief = place.client.open(ttl=2)
    session.write("kept", "kept").done()
    place.server.kill()
    place.server.start()
    assert session.look().done()["expiresAt"] is None
    until(lambda: brief.look().status == 404, "the other one to expire")
    slept = session.client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": "deep-sleep"})
    assert slept.done()["expiresAt"] is None
    assert session.text("kept") == "kept"
    assert session.patch(ttl=2).done()["expiresAt"] is not None
    until(lambda: session.look().status == 404, "it to expire after all")


def test_a_hostile_session_cannot_stay_awake_beyond_its_plan(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="2", BUNTIME_TICK_MS="100")
    free = server.new_client("free")
    for policy, status, code in (
        ({"awakeWhile": "processes"}, 403, "forbidden"),
        ({"idleAfter": "never"}, 400, "invalid_request"),
        ({"idleAfter": 901}, 400, "invalid_request"),
    ):
        free.create(sleepPolicy=policy).refused(status, code)
    session = Session(free, str(free.create().done()["sessionId"]))
    background(session, "while :; do :; done")
    background(session, "while :; do curl -s -m 1 http://192.0.2.1/; done")
    until(lambda: state(session) == "idle", "the session to be suspended in the middle of its work")
