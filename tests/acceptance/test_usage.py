"""Usage is what the kernel counted, whatever happens to the server: real servers and real sandboxes."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox

BUSY = "timeout {} sh -c 'while :; do :; done' || true"
MB = 1 << 20
SERVE = "nohup bun -e '{}' > /tmp/log 2>&1 & until curl -s localhost:8080/ > /dev/null; do sleep 0.05; done"
SENDS = 'Bun.serve({port: 8080, fetch: (r) => new Response(r.url.endsWith("/large") ? new Uint8Array(8 << 20) : "")})'


def counted(server: Server, session: Session) -> float:
    """Seconds of processor time of the session's programs, as its cgroup has them."""
    place = f"buntime-{server.config.instance}/{traces.sandbox_of(server.config, session.id)}/runs"
    with suppress(FileNotFoundError):
        return int((traces.CGROUPS / "cpuacct" / place / "cpuacct.usage").read_text()) / 1e9
    lines = (traces.CGROUPS / place / "cpu.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6


def windows(client: Client, session: Session) -> list[dict[str, Any]]:
    """All windows of the session, page by page. Asserts that none is missing, none is there twice, and none overlaps
    another one."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, object] = {}
    while page := (told := client.call("GET", "/usage/windows", query={"limit": 3, **cursor}).done())["windows"]:
        found += page
        cursor = {"cursor": told["cursor"]}
    own = [window for window in found if window["sessionId"] == session.id]
    ordinals = [int(window["windowId"].rpartition("_")[2]) for window in own]
    assert ordinals == list(range(1, len(own) + 1))
    assert all(one["to"] == two["from"] for one, two in pairwise(own))
    return own


def total(client: Client, session: Session) -> dict[str, Any]:
    return dict(client.call("GET", "/usage", query={"sessionId": session.id}).done()["total"])


def cpu(of: Sequence[dict[str, Any]]) -> float:
    return float(sum(window["cpuSeconds"] for window in of))


def test_the_cpu_of_a_busy_loop_is_that_of_the_cgroup(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    before = counted(server, session)
    session.output(BUSY.format(4))
    ask_to_sleep(session, "idle").done()
    truth = counted(server, session) - before
    session.delete().done()
    assert truth > 1
    assert cpu(windows(client, session)) == pytest.approx(truth, rel=0.01)
    assert total(client, session)["cpuSeconds"] == pytest.approx(truth, rel=0.01)


def test_a_server_that_is_killed_between_two_notes_loses_no_cpu_and_no_second(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    before = counted(server, session)
    session.output("(while :; do :; done) > /dev/null 2>&1 &")
    for _ in range(3):
        time.sleep(1)
        server.kill()
        time.sleep(0.5)
        server.start()
    time.sleep(1)
    ask_to_sleep(session, "idle").done()
    truth = counted(server, session) - before
    session.delete().done()
    found = windows(client, session)
    assert truth > 1
    assert cpu(found) == pytest.approx(truth, rel=0.01)
    assert {window["state"] for window in found} == {"active", "idle"}
    assert sum(window["active"] for window in found) > 5.5


def test_a_sandbox_that_ends_while_the_server_is_down_uses_nothing_from_its_last_note_on(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.output(BUSY.format(1))
    ask_to_sleep(session, "idle").done()
    noted = total(client, session)
    wake(session).done()
    server.kill()
    traces.kill_sandbox(server.config, session.id)
    time.sleep(2)
    server.start()
    until(lambda: state(session) == "deep-sleep", "the server to see that the sandbox has ended")
    session.delete().done()
    used, found = total(client, session), windows(client, session)
    assert used["cpuSeconds"] == noted["cpuSeconds"] > 0
    assert found[-1]["state"] == "deep-sleep"
    assert used["deepSleep"] >= 2
    assert cpu(found) == pytest.approx(used["cpuSeconds"])


def test_each_state_has_its_own_windows_and_seconds(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    begun = time.monotonic()
    session = client.open()
    ask_to_sleep(session, "idle").done()
    time.sleep(1)
    wake(session).done()
    deep_sleep(session)
    time.sleep(2)
    wake(session).done()
    session.output("true")
    session.delete().done()
    lasted = time.monotonic() - begun
    found = windows(client, session)
    assert [window["state"] for window in found] == ["active", "idle", "active", "deep-sleep", "active"]
    sums = {name: sum(window[name] for window in found) for name in ("active", "idle", "deepSleep")}
    assert sums["idle"] >= 1
    assert sums["deepSleep"] >= 2
    assert sum(sums.values()) <= lasted
    asleep = found[3]
    assert (asleep["cpuSeconds"], asleep["memoryByteSeconds"], asleep["bytesOut"]) == (0, 0, 0)
    assert sum(window["executions"] for window in found) == 1
    used = total(client, session)
    assert {name: used[name] for name in sums} == pytest.approx(sums)


def test_bytes_that_a_visitor_downloads_are_bytes_out(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.output(SERVE.format(SENDS))
    host = f"{session.id.replace('_', '-')}.localhost:{client.port}"
    got = Client(client.port, None).call("GET", "/large", headers={"Host": host})
    assert len(got.body) == 8 * MB
    ask_to_sleep(session, "idle").done()
    assert 8 * MB <= total(client, session)["bytesOut"] <= 9 * MB
    session.delete().done()


def test_memory_and_disk_are_those_that_the_session_has(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.output("head -c 40M /dev/urandom > file; (tail -f /dev/null) > /dev/null 2>&1 &")
    volumes = server.config.data_dir / "volumes"  # the quota has what is committed, by itself within 30 s
    subprocess.run(["btrfs", "filesystem", "sync", volumes], check=True, capture_output=True)
    ask_to_sleep(session, "idle").done()
    time.sleep(2)
    session.delete().done()
    idle = next(window for window in windows(client, session) if window["state"] == "idle")
    assert 40 * MB <= idle["diskByteSeconds"] / idle["idle"] <= 45 * MB
    assert 0 < idle["memoryByteSeconds"] / idle["idle"] <= 1024 * MB


def test_what_is_not_yours_or_not_possible_is_refused(servers: Servers) -> None:
    server = servers.start()
    client, other = server.new_client(), server.new_client()
    session = client.open()
    session.delete().done()
    assert total(client, session)["active"] > 0
    other.call("GET", "/usage", query={"sessionId": session.id}).refused(404, "session_not_found")
    assert other.call("GET", "/usage/windows").done()["windows"] == []
    for query, field in (
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-01-02", "to": "2026-01-02"}, "from"),
        ({"groupBy": "hour"}, "groupBy"),
        ({"groupBy": "session", "cursor": "x"}, "cursor"),
    ):
        client.call("GET", "/usage", query=query).refused(400, "invalid_request", field)
    for cursor in ("x", "uwc_ffff"):
        client.call("GET", "/usage/windows", query={"cursor": cursor}).refused(400, "invalid_request", "cursor")
    made = client.call("POST", "/keys/create", json_body={"scopes": ["sessions:read"]}).done()
    for path in ("/usage", "/usage/windows"):
        refused = server.client(made["key"]).call("GET", path)
        assert refused.refused(403, "forbidden")["scope"] == "account:read"
