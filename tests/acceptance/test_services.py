"""Services of real sandboxes: what crashes is started again, and what sleeps deeply is there after the wake."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.hostile import assault_on_the_guest
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state, wake
from tests.acceptance.test_previews import _see
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SERVER = "Bun.serve({ port: process.env.PORT, fetch: () => new Response(`${process.pid}`) })"
WEB: dict[str, Any] = {"name": "web", "port": 8080, "command": f"echo starting; exec bun -e '{SERVER}'"}


def services_of(session: Session) -> dict[str, Mapping[str, Any]]:
    """How they are, by name."""
    told = session.client.call("GET", f"/sessions/{session.id}/services").done()
    return {one["name"]: one for one in told["services"]}


def act(session: Session, name: str, what: str) -> Any:
    return session.client.call("POST", f"/sessions/{session.id}/services/{name}/{what}").done()


def wait_for(session: Session, name: str, is_so: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    until(lambda: is_so(services_of(session)[name]), f"the service {name}")
    return services_of(session)[name]


def output_of(session: Session, process: str) -> str:
    query = {"sessionId": session.id, "processId": process}
    entries = session.client.call("GET", "/processes/logs", query=query).done()["entries"]
    return "".join(entry["data"] for entry in entries)


def test_a_crash_is_restarted_and_its_log_goes_on(paid: Client) -> None:
    session = paid.open(services=[WEB])
    first = wait_for(session, "web", lambda web: web["pid"] is not None)
    session.output(f"kill -9 {first['pid']}")
    again = wait_for(session, "web", lambda web: web["restarts"] == 1 and web["pid"] is not None)
    assert (again["state"], again["lastExit"]["exitCode"]) == ("running", 137)
    assert again["processId"] == first["processId"]
    assert _see(paid, session).body.decode() == str(again["pid"])
    assert output_of(session, again["processId"]).count("starting\n") == 2
    session.delete().done()


def test_rules_say_what_is_started_again(paid: Client) -> None:
    session = paid.open(
        services=[
            {"name": "never", "command": "echo once >> once; exit 1", "restart": "never"},
            {"name": "worked", "command": "exit 0", "restart": "on-failure"},
            {"name": "failed", "command": "exit 3", "restart": "on-failure"},
            {"name": "always", "command": "exit 0"},
        ]
    )
    wait_for(session, "failed", lambda one: one["restarts"] >= 2)
    wait_for(session, "always", lambda one: one["restarts"] >= 2)
    found = services_of(session)
    assert [(found[name]["state"], found[name]["restarts"]) for name in ("never", "worked")] == [("exited", 0)] * 2
    assert found["never"]["lastExit"]["exitCode"] == 1
    assert session.text("once") == "once\n"
    query = {"sessionId": session.id, "processId": found["never"]["processId"]}
    process = session.client.call("GET", "/processes/get", query=query).done()
    assert (process["status"], process["exitCode"], process["name"]) == ("exited", 1, "never")
    session.delete().done()


def test_a_preview_of_a_declared_port_waits_until_it_listens(paid: Client) -> None:
    slow = WEB | {"command": "sleep 2; " + WEB["command"]}
    session = paid.open(services=[slow])
    assert _see(paid, session).status == 200
    for _ in range(2):
        deep_sleep(session)
        with ThreadPoolExecutor(4) as pool:
            assert [reply.status for reply in pool.map(lambda _: _see(paid, session), range(4))] == [200] * 4
    session.patch(services=[WEB | {"command": "sleep 1000"}]).done()
    act(session, "web", "stop")
    time.sleep(1.1)  # for which the edge may use its permission
    refused = _see(paid, session)
    assert (refused.status, refused.error["code"]) == (502, "unavailable")
    assert "was stopped" in refused.error["message"]
    session.delete().done()


def test_a_suspended_service_goes_on_where_it_was(paid: Client) -> None:
    session = paid.open(services=[WEB])
    before = wait_for(session, "web", lambda web: web["pid"] is not None)
    ask_to_sleep(session, "idle").done()
    assert services_of(session)["web"] == before
    session.delete().done()


def test_deep_sleep_is_gentle_and_a_wake_starts_them_again(paid: Client) -> None:
    command = "trap 'echo saved > saved; exit 0' TERM; echo up >> ups; while :; do sleep 0.1; done"
    session = paid.open(services=[{"name": "careful", "command": command}])
    until(lambda: session.read("ups").status == 200, "the service to start")
    old = services_of(session)["careful"]["processId"]
    deep_sleep(session)
    wake(session).done()
    until(lambda: session.text("ups") == "up\nup\n", "the service to start again")
    assert session.text("saved") == "saved\n"
    query = {"sessionId": session.id, "processId": old}
    ended = session.client.call("GET", "/processes/get", query=query).done()
    assert (ended["status"], ended["exitCode"], ended["reason"]) == ("exited", 0, "deep_sleep")
    session.delete().done()


def test_services_outlive_the_server_and_are_there_after_the_guest_was_killed(server: Server, paid: Client) -> None:
    session = paid.open(services=[WEB])
    before = wait_for(session, "web", lambda web: web["pid"] is not None)
    server.kill()
    server.start()
    assert services_of(session)["web"] == before
    session.execute(command=assault_on_the_guest(session, "end"))
    after = wait_for(session, "web", lambda web: web["pid"] is not None)
    assert (after["state"], after["restarts"], after["processId"] == before["processId"]) == ("running", 0, False)
    assert _see(paid, session).status == 200
    session.delete().done()


def test_a_server_that_is_killed_at_once_after_a_create_starts_them_later(server: Server, paid: Client) -> None:
    sessions = [paid.open(services=[WEB | {"command": "echo > started; sleep 1000"}]) for _ in range(3)]
    server.kill()
    server.start()
    time.sleep(1)
    for session in sessions:
        until(lambda: session.read("started").status == 200, "its service")  # noqa: B023
        session.delete().done()


def test_a_patch_changes_what_runs(paid: Client) -> None:
    stay, go = {"name": "stay", "command": "exec sleep 1000"}, {"name": "go", "command": "exec sleep 1001"}
    session = paid.open(services=[stay, go])
    before = wait_for(session, "stay", lambda one: one["pid"] is not None)
    session.patch(services=[{"name": "new", "command": "exec sleep 1002"}, stay]).done()
    until(lambda: session.command("pgrep -f 'sleep 1001$'")["exitCode"] == 1, "the old service to end")
    wait_for(session, "new", lambda one: one["state"] == "running")
    assert services_of(session)["stay"] == before
    session.patch(services=None).done()
    until(lambda: session.command("pgrep -x sleep")["exitCode"] == 1, "all services to end")
    assert services_of(session) == {}
    session.delete().done()


def test_a_fork_and_a_restore_have_their_own(paid: Client) -> None:
    session = paid.open(services=[WEB])
    wait_for(session, "web", lambda web: web["pid"] is not None)
    made = paid.call("POST", f"/sessions/{session.id}/fork", json_body={}).done()["sessions"][0]["session"]
    fork = Session(paid, made["sessionId"])
    assert _see(paid, fork).status == 200
    assert services_of(fork)["web"]["processId"] != services_of(session)["web"]["processId"]
    snapshot = paid.call("POST", f"/sessions/{session.id}/snapshots").done()["snapshotId"]
    paid.call("POST", f"/sessions/{session.id}/restore", json_body={"snapshotId": snapshot}).done()
    assert _see(paid, session).status == 200
    fork.delete().done()
    session.delete().done()


def test_a_session_can_end_its_supervision_and_gets_it_back(paid: Client) -> None:
    session = paid.open(services=[WEB])
    before = wait_for(session, "web", lambda web: web["pid"] is not None)
    session.output(f"kill -9 $(ps -o ppid= -p {before['pid']})")
    after = wait_for(session, "web", lambda web: web["processId"] != before["processId"] and web["pid"] is not None)
    assert after["state"] == "running"
    assert _see(paid, session).status == 200
    session.delete().done()


def test_a_crash_loop_costs_little_and_leaves_the_session_usable(paid: Client) -> None:
    session = paid.open(services=[{"name": f"loop{n}", "command": "exit 1"} for n in range(8)])
    wait_for(session, "loop7", lambda one: one["restarts"] >= 3)
    assert session.output("echo fine") == "fine\n"
    total = session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["total"]
    assert total == 8, "a restart is no new process"
    ask_to_sleep(session, "idle").done()
    assert state(session) == "idle"
    session.delete().done()


def test_services_are_refused_beyond_their_bounds(paid: Client, session: Session) -> None:
    nine = [{"name": f"s{n}", "command": "true"} for n in range(9)]
    paid.create(services=nine).refused(400, "invalid_request", "services")
    session.patch(services=[WEB, WEB]).refused(400, "invalid_request", "services[1].name")
    session.patch(services=[WEB | {"name": "Web"}]).refused(400, "invalid_request", "services[0].name")
    session.patch(services=[WEB | {"port": 49}]).refused(400, "invalid_request", "services[0].port")
    session.patch(services=[WEB | {"command": "x" * 16385}]).refused(400, "invalid_request", "services[0].command")
