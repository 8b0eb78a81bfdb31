"""`process.exited` of real sandboxes: once for each process, over kills of the server, and to webhooks."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import take_the_guests_place
from tests.acceptance.sleeping import deep_sleep, state
from tests.acceptance.test_processes import events, start
from tests.waiting import until

pytestmark = pytest.mark.sandbox

STORED = 3.0  # seconds: longer than an end takes to be stored


def exits(session: Session) -> list[dict[str, Any]]:
    """What was told of the session's processes, in order."""
    query = {"sessionId": session.id, "type": "process.exited", "limit": "1000"}
    found = session.client.call("GET", "/events", query=query).done()["events"]
    return [event["data"] for event in found]


def codes(session: Session) -> dict[str, int]:
    return {told["processId"]: told["exitCode"] for told in exits(session)}


def test_exit_codes_signals_and_timeouts_are_told(paid: Client) -> None:
    session = paid.open()
    own, killed = start(session, "exit 7", name="own"), start(session, "sleep 1000")
    late = start(session, "sleep 1000", timeout=1)
    killed.signal("SIGKILL").done()
    until(lambda: len(exits(session)) == 3, "the ends to be told")
    assert codes(session) == {own.id: 7, killed.id: 137, late.id: 124}
    told = {one["processId"]: one for one in exits(session)}
    by = {"actor": "server"}
    assert told[own.id] == {"processId": own.id, "name": "own", "exitCode": 7, "reason": None, "by": by}
    assert told[late.id]["reason"] == "timeout"
    # what the session itself kills ends too
    other = start(session, "sleep 1000")
    session.output(f"kill -TERM {other.look()['pid']}")
    until(lambda: codes(session).get(other.id) == 143, "the last end to be told")
    session.delete().done()


def test_a_detached_run_and_a_program_that_leaves_children_are_told(paid: Client) -> None:
    session = paid.open()
    parent = start(session, "sleep 1000 & exit 2")
    body = {"sessionId": session.id, "command": "exit 5", "stream": True, "detach": True}
    run = next(iter(events(session.client, "POST", "/execute", body))).data["processId"]
    until(lambda: codes(session) == {parent.id: 2, run: 5}, "the ends to be told")
    session.delete().done()


def test_ends_do_not_come_of_what_sleep_or_deletion_ends(paid: Client) -> None:
    session = paid.open()
    start(session, "sleep 1000")
    deep_sleep(session)
    assert exits(session) == []
    start(session, "sleep 1000")
    session.delete().done()
    time.sleep(STORED)
    assert exits(session) == []


def test_a_service_is_told_of_when_it_is_not_started_again(paid: Client) -> None:
    session = paid.open(services=[{"name": "once", "command": "exit 3", "restart": "never"}])
    until(lambda: len(exits(session)) == 1, "the end to be told")
    assert (exits(session)[0]["name"], exits(session)[0]["exitCode"]) == ("once", 3)
    session.delete().done()


def test_200_processes_that_end_at_once_are_told_once_each(enterprise: Client) -> None:
    sessions = [enterprise.open() for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(lambda number: start(sessions[number % 2], "read x < go; exit 4"), range(200)))
        for session in sessions:
            session.output("[ -p go ] || mkfifo go; timeout 5 sh -c 'seq 1000 > go' || true")
    until(lambda: sum(len(exits(session)) for session in sessions) >= 200, "all ends to be told")
    time.sleep(STORED)
    told = [one["processId"] for session in sessions for one in exits(session)]
    assert sorted(told) == sorted(one.id for one in started)
    for session in sessions:
        session.delete().done()


def test_an_end_neither_wakes_a_session_nor_keeps_it_awake(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="3")
    session = server.new_client().open()
    loop = "for i in $(seq 100); do sleep 0.2; done"
    started = [start(session, f"sleep {second}") for second in (1, 2)]
    start(session, loop)
    until(lambda: state(session) == "idle", "the session to be suspended")
    assert sorted(codes(session)) == sorted(one.id for one in started)
    time.sleep(STORED)
    assert state(session) == "idle"


def test_ends_are_told_once_over_kills_of_the_server(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    told = [start(session, "exit 1")]
    until(lambda: len(exits(session)) == 1, "the first end to be told")
    at_once = [start(session, "sleep 0.3; exit 2") for _ in range(5)]
    away, later = start(session, "sleep 2; exit 3", name="away"), start(session, "cat")
    until(lambda: all(one.look()["status"] == "exited" for one in at_once), "them to end")
    server.kill()  # within the second in which they are noted and not stored
    time.sleep(2.5)
    server.start()
    expected = {told[0].id: 1, **{one.id: 2 for one in at_once}, away.id: 3}
    until(lambda: len(exits(session)) >= len(expected), "the ends of before to be told")
    later.input(close=True).done()
    until(lambda: len(exits(session)) >= len(expected) + 1, "an end of now to be told")
    for _ in range(2):
        server.kill()
        server.start()
        assert session.output("echo here") == "here\n"
        time.sleep(STORED)
    assert codes(session) == expected | {later.id: 0}
    assert len(exits(session)) == len(expected) + 1
    assert {one["processId"]: one["name"] for one in exits(session)}[away.id] == "away"


class Hook(BaseHTTPRequestHandler):
    got: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_webhook_gets_the_end_of_a_process(servers: Servers) -> None:
    server = servers.start(BUNTIME_WEBHOOK_NETWORKS="127.0.0.0/8")
    client = server.new_client()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        fields = {"url": f"http://127.0.0.1:{receiver.server_port}/hook", "events": ["process.exited"]}
        client.call("POST", "/webhooks/create", json_body=fields).done()
        session = client.open()
        process = start(session, "exit 5", name="job")
        until(lambda: bool(Hook.got), "the webhook to be sent")
        receiver.shutdown()
    (event,) = Hook.got
    assert (event["type"], event["sessionId"], event["requestId"]) == ("process.exited", session.id, None)
    assert (event["data"]["processId"], event["data"]["exitCode"]) == (process.id, 5)


@pytest.mark.parametrize("lie", ["others", "garbage"])
def test_a_lying_guest_ends_its_own_sandbox_and_tells_of_nothing(paid: Client, lie: str) -> None:
    bad, beside = paid.open(), paid.open()
    mine, others = start(bad, "sleep 1000"), start(beside, "sleep 1000")
    take_the_guests_place(bad, "false_ends.py", others.id, lie)
    time.sleep(2 * STORED)  # no request reaches the impostor: the server itself asks it
    assert bad.text("/root/taking.log") == "ready\nasked\n"
    assert mine.look()["status"] == "lost"
    assert (exits(bad), exits(beside), others.look()["status"]) == ([], [], "running")
    for session in (bad, beside):
        session.delete().done()
