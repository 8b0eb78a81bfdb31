"""What sessions are seen to do over time, with real sandboxes: the kernel's counters, files, kills of the server."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance import measuring_server
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers, fresh_server
from tests.acceptance.measuring_server import INTERVAL
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
SEEN_SECONDS, LOOK_SECONDS = 60.0, 0.2
GAP_SECONDS = 5 * INTERVAL
QUICK = [sys.executable, measuring_server.__file__]
SETTINGS = {"BUNTIME_TICK_MS": "100"}  # a tick that is late must not end up in the next interval
SERVER = (
    "Bun.serve({ port: 8080, maxRequestBodySize: 1 << 30, "
    "fetch: async (asked) => new Response(new Uint8Array((await asked.arrayBuffer()).byteLength ? 10 << 20 : 1)) })"
)
LOOP = "while true; do :; done"
HOLD = (
    "python3 -c \"import time; held = bytearray(300 << 20); held[::4096] = b'1' * len(held[::4096]); time.sleep(600)\""
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Measures more often than a server does by itself."""
    with fresh_server(pool_size=2) as server:
        server.settings |= SETTINGS
        server.start(QUICK)
        yield server
        assert server.stop() == 0


@pytest.fixture
def session(enterprise: Client) -> Iterator[Session]:
    """These tests ask often."""
    session = enterprise.open()
    yield session
    session.delete()


def watch(seen: Callable[[], object], what: str, seconds: float = SEEN_SECONDS) -> None:
    """The same as `until`, with fewer requests."""

    def look() -> object:
        time.sleep(LOOK_SECONDS)
        return seen()

    until(look, what, seconds)


def points(session: Session, **query: object) -> list[Mapping[str, Any]]:
    told = session.client.call("GET", f"/sessions/{session.id}/metrics", query=query).done()
    return list(told["points"])


def start(session: Session, command: str) -> None:
    session.client.call("POST", "/processes/start", json_body={"sessionId": session.id, "command": command}).done()


def sleep(session: Session, depth: str) -> None:
    session.client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": depth}).done()


def kept(server: Server) -> set[str]:
    return {file.name for file in (server.config.data_dir / "measurements").iterdir()}


def until_measured(session: Session, more_than: int = 0) -> None:
    watch(lambda: len(points(session)) > more_than, "a measurement")


def test_a_busy_loop_is_seen_with_the_processor_time_that_it_got(session: Session) -> None:
    until_measured(session)
    before = len(points(session))
    ran = session.command(f"timeout 12 sh -c '{LOOP}'", timeout=60)["cpuTime"] / 1000
    after = len(points(session))
    watch(lambda: len(points(session)) >= after + 2, "measurements after the run")
    found = points(session)[before:]
    assert 0.9 * ran <= sum(point["cpu"] * point["seconds"] for point in found) <= 1.12 * ran, (ran, found)
    assert all(point["cpu"] <= 1.2 for point in found)  # its limit is a core


def test_memory_that_is_held_is_seen(servers: Servers) -> None:
    """Of a server that measures as always."""
    session = servers.start().new_client("enterprise").open()
    until_measured(session)
    assert all(point["memory"] < 300 * MB for point in points(session))
    start(session, HOLD)
    watch(lambda: any(point["memory"] > 300 * MB for point in points(session)), "300 MB in a measurement")


def test_files_and_their_disk_are_seen(session: Session) -> None:
    session.output("head -c 60M /dev/urandom > file; sync file")
    watch(lambda: any(point["disk"] > 60 * MB for point in points(session)), "60 MB of disk", 2 * SEEN_SECONDS)


def test_bytes_that_come_in_and_go_out_are_seen(session: Session) -> None:
    session.write("server.ts", SERVER).done()
    start(session, "bun server.ts")
    visitor = Client(session.client.port, None)
    host = {"Host": urlsplit(session.look().done()["previewUrl"]).netloc}
    until(lambda: visitor.call("GET", "/", headers=host).status == 200, "the session's server")
    until_measured(session)
    visitor.call("POST", "/", body=b"x" * (20 * MB), headers=host)

    def seen(name: str, least: int) -> bool:
        return any(point[name] > least for point in points(session))

    watch(lambda: seen("bytesIn", 20 * MB) and seen("bytesOut", 10 * MB), "20 MB in and 10 MB out")
    assert seen("bytesInMax", MB)


def test_a_suspended_session_has_a_gap(session: Session) -> None:
    start(session, LOOP)
    watch(lambda: len(points(session)) >= 2, "two measurements")
    sleep(session, "idle")
    time.sleep(GAP_SECONDS)
    asleep = points(session)
    session.output("true")
    watch(lambda: len(points(session)) > len(asleep), "a measurement after the wake")
    times = [datetime.fromisoformat(point["time"]) for point in points(session)]
    assert max((later - earlier).total_seconds() for earlier, later in pairwise(times)) >= 4 * INTERVAL
    assert all(point["cpu"] <= 1.2 for point in points(session))


def test_reading_does_not_wake_a_session(session: Session) -> None:
    until_measured(session)
    sleep(session, "deep-sleep")
    before = session.look().done()
    assert points(session)
    (listed,) = [
        one
        for one in session.client.call("GET", "/metrics/sessions", query={"limit": 1000}).done()["sessions"]
        if one["sessionId"] == session.id
    ]
    assert (listed["state"], listed["metrics"]) == ("deep-sleep", None)
    after = session.look().done()
    assert (after["state"], after["lastActive"]) == ("deep-sleep", before["lastActive"])


def test_another_account_finds_nothing(session: Session, free: Client) -> None:
    free.call("GET", f"/sessions/{session.id}/metrics").refused(404, "session_not_found")
    assert session.id not in str(free.call("GET", "/metrics/sessions").done())


def test_a_killed_server_keeps_the_history_and_a_deletion_leaves_no_file(servers: Servers) -> None:
    server = servers.make()
    server.settings |= SETTINGS
    server.start(QUICK)
    client = server.new_client("enterprise")
    session, other = client.open(), client.open()
    until_measured(session, 1)
    until_measured(other)
    before = points(session)
    server.kill()
    server.start(QUICK)
    after = points(session)
    assert after[: len(before)] == before
    until_measured(session, len(after))
    assert all(point["cpu"] >= 0 and point["bytesIn"] >= 0 for point in points(session))
    sleep(session, "deep-sleep")
    session.output("true")
    until_measured(session, len(after) + 1)
    assert points(session)[: len(before) - 1] == before[:-1]

    session.delete().done()
    until(lambda: kept(server) == {other.id}, "one history to be left")
    (server.config.data_dir / "measurements" / "ses_000000000000000000").write_bytes(b"of nobody")
    server.kill()
    server.start(QUICK)
    assert kept(server) == {other.id}
    server.stop()
