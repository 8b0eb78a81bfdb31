"""Services over HTTP: what a session declares runs whenever it is awake."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any

import pytest

from buntime import errors
from buntime.inside import ServiceStatus
from buntime.lifecycle import services as running
from buntime.operations import previews
from buntime.ports import Sandbox
from buntime.session import State
from buntime.testing.sandboxes import FakeSandbox
from tests.app.serving import Answer, Api, serving
from tests.app.sleeping import PATIENCE, deep_sleep, stored_of
from tests.app.test_previews import host_of
from tests.waiting import eventually

WEB = {"name": "web", "command": "serve", "port": 8080}
WORKER = {"name": "worker", "command": "work", "restart": "on-failure"}


def sandbox_of(api: Api) -> FakeSandbox:
    (sandbox,) = api.sandboxes.running.values()
    return sandbox


async def shown(api: Api, session: str) -> dict[str, Mapping[str, Any]]:
    """By name."""
    answer = await api.call("GET", f"/sessions/{session}/services")
    assert answer.status == 200, answer.body
    return {one["name"]: one for one in answer.json["services"]}


async def states(api: Api, session: str) -> dict[str, str]:
    return {name: one["state"] for name, one in (await shown(api, session)).items()}


async def act(api: Api, session: str, name: str, what: str, **others: Any) -> Answer:
    return await api.call("POST", f"/sessions/{session}/services/{name}/{what}", **others)


async def patch(api: Api, session: str, services: object) -> Answer:
    return await api.call("PATCH", f"/sessions/{session}", {"services": services})


async def test_declared_services_run_after_the_creation_with_the_variables_of_both(api: Api) -> None:
    session = await api.session(env={"A": "1", "B": "1"}, services=[WEB | {"env": {"B": "2"}}, WORKER])
    found = await shown(api, session)
    assert [(one["state"], one["restarts"], one["lastExit"], one["port"]) for one in found.values()] == [
        ("running", 0, None, 8080),
        ("running", 0, None, None),
    ]
    new = sandbox_of(api).services.all["web"].new
    assert new.env == {"A": "1", "B": "2", "PORT": "8080"}
    assert (new.working_dir, new.restart) == ("/workspace", "always")
    logs = await api.call("GET", f"/processes/logs?sessionId={session}&processId={found['web']['processId']}")
    assert (logs.status, logs.json["status"]) == (200, "running")


async def test_a_session_shows_what_it_declares_without_the_values_of_variables(api: Api) -> None:
    session = await api.session(services=[WEB | {"env": {"B": "x", "A": "y"}, "workingDir": "app"}])
    declared = (await api.call("GET", f"/sessions/{session}")).json["services"]
    assert declared == [
        {
            "name": "web",
            "command": "serve",
            "port": 8080,
            "workingDir": "/workspace/app",
            "envNames": ["A", "B"],
            "restart": "always",
        }
    ]


async def test_the_port_is_no_variable_if_the_service_sets_its_own(api: Api) -> None:
    session = await api.session(services=[WEB | {"env": {"PORT": "1"}}])
    await shown(api, session)
    assert sandbox_of(api).services.all["web"].new.env == {"PORT": "1"}


async def test_restarts_and_the_last_exit_are_shown(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    sandbox_of(api).services.ends("web", 7)
    web = (await shown(api, session))["web"]
    assert (web["state"], web["restarts"], web["lastExit"]["exitCode"]) == ("running", 1, 7)


async def test_services_are_there_after_each_deep_sleep_and_go_on_after_a_suspension(api: Api) -> None:
    session = await api.session(services=[WEB])
    first = (await shown(api, session))["web"]["processId"]
    await api.call("POST", f"/sessions/{session}/sleep")
    assert (await shown(api, session))["web"]["processId"] == first
    for _ in range(3):
        await deep_sleep(api, session)
        web = (await shown(api, session))["web"]
        assert (web["state"], web["restarts"]) == ("running", 0)
        assert web["processId"] != first


async def test_a_wake_by_any_request_starts_them(api: Api) -> None:
    session = await api.session(services=[WEB])
    await deep_sleep(api, session)
    await api.call("POST", "/execute", {"sessionId": session, "command": "echo hi"})
    await eventually(lambda: "web" in sandbox_of(api).services.all)


async def test_a_new_sandbox_gets_them_too(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    await api.sandboxes.kill(sandbox_of(api).id)
    assert await states(api, session) == {"web": "running"}


async def test_a_patch_starts_new_ones_stops_others_and_restarts_changed_ones(api: Api) -> None:
    session = await api.session(services=[WEB, WORKER])
    before = await shown(api, session)
    changed = await patch(api, session, [WEB, WORKER | {"command": "work harder"}, {"name": "third", "command": "x"}])
    assert [one["name"] for one in changed.json["services"]] == ["web", "worker", "third"]
    after = await shown(api, session)
    assert [one["state"] for one in after.values()] == ["running"] * 3
    assert after["web"]["processId"] == before["web"]["processId"]
    assert after["worker"]["processId"] != before["worker"]["processId"]
    assert (await patch(api, session, None)).json["services"] == []
    assert await shown(api, session) == {}
    await eventually(lambda: not sandbox_of(api).services.all)
    assert sandbox_of(api).processes.live == 0


async def test_a_patch_of_something_else_leaves_them_alone(api: Api) -> None:
    session = await api.session(services=[WEB])
    before = await shown(api, session)
    await api.call("PATCH", f"/sessions/{session}", {"metadata": {"a": 1}, "env": {"A": "1"}})
    assert await shown(api, session) == before


async def test_a_patch_does_not_wake_the_session_and_counts_at_the_wake(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    await api.call("POST", f"/sessions/{session}/sleep")
    assert (await patch(api, session, [WORKER])).json["state"] == "idle"
    assert sandbox_of(api).frozen
    assert await states(api, session) == {"worker": "running"}
    assert [*sandbox_of(api).services.all] == ["worker"]


async def test_a_service_can_be_stopped_started_and_restarted(api: Api) -> None:
    session = await api.session(services=[WEB])
    stopped = await act(api, session, "web", "stop")
    assert (stopped.json["state"], stopped.json["pid"]) == ("stopped", None)
    assert (await act(api, session, "web", "stop")).json["state"] == "stopped"
    assert await states(api, session) == {"web": "stopped"}
    started = await act(api, session, "web", "start")
    assert (started.json["state"], started.json["lastExit"]) == ("running", None)
    assert (await act(api, session, "web", "start")).json == started.json
    await api.call("PATCH", f"/sessions/{session}", {"env": {"A": "1"}})
    restarted = await act(api, session, "web", "restart")
    assert restarted.json["processId"] != started.json["processId"]
    assert sandbox_of(api).services.all["web"].new.env["A"] == "1"


async def test_a_stop_lasts_until_deep_sleep(api: Api) -> None:
    session = await api.session(services=[WEB])
    await act(api, session, "web", "stop")
    await api.call("POST", f"/sessions/{session}/sleep")
    assert await states(api, session) == {"web": "stopped"}
    await deep_sleep(api, session)
    assert await states(api, session) == {"web": "running"}


async def test_a_service_that_exits_by_its_rule_stays_exited_and_can_be_started(api: Api) -> None:
    session = await api.session(services=[WORKER])
    await shown(api, session)
    sandbox_of(api).services.ends("worker", 0)
    assert (await shown(api, session))["worker"]["state"] == "exited"
    assert (await act(api, session, "worker", "start")).json["state"] == "running"


async def test_a_service_whose_supervision_was_killed_is_started_anew_while_the_session_is_used(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.0)
    session = await api.session(services=[WEB])
    before = (await shown(api, session))["web"]["processId"]
    sandbox_of(api).services.loses("web")
    web = (await shown(api, session))["web"]
    assert (web["state"], web["processId"] == before) == ("running", False)


async def test_a_session_that_kills_the_supervision_again_and_again_gets_fewer_and_fewer_starts(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.0)
    session = await api.session(services=[WEB])
    await shown(api, session)
    monkeypatch.setattr(running.Starts, "next", property(lambda starts: math.inf if starts.count >= 3 else 0.0))
    for state in ("running", "running", "restarting", "restarting"):
        sandbox_of(api).services.loses("web")
        assert await states(api, session) == {"web": state}
    assert (await patch(api, session, [WEB | {"command": "another"}])).status == 200
    assert await states(api, session) == {"web": "running"}
    await deep_sleep(api, session)
    assert await states(api, session) == {"web": "running"}


def test_the_pauses_between_starts_of_a_service_that_is_killed_grow() -> None:
    pauses = [running.Starts("sb", "ab", count, 1000.0).next - 1000 for count in range(1, 1000)]
    assert pauses[:6] == [0, 0, 10, 20, 40, 80]
    assert pauses == sorted(pauses)
    assert pauses[-1] == running.LONGEST_PAUSE_SECONDS


async def test_between_two_looks_it_shows_as_restarting(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    sandbox_of(api).services.loses("web")
    assert await states(api, session) == {"web": "restarting"}


async def test_unknown_names_and_foreign_sessions_are_not_found(api: Api) -> None:
    session, other = await api.session(services=[WEB]), await api.account(name="two")
    for what in ("start", "stop", "restart"):
        assert (await act(api, session, "missing", what)).refusal == (404, "service_not_found")
        assert (await act(api, session, "web", what, key=other)).refusal == (404, "session_not_found")
    assert (await api.call("GET", f"/sessions/{session}/services", key=other)).refusal == (404, "session_not_found")
    await api.call("DELETE", f"/sessions/{session}")
    assert (await api.call("GET", f"/sessions/{session}/services")).refusal == (404, "session_not_found")


@pytest.mark.parametrize(
    ("services", "field"),
    [
        ([{"name": f"s{n}", "command": "x"} for n in range(9)], "services"),
        ([WEB, WEB], "services[1].name"),
        ([WEB, {"name": "other", "command": "x", "port": 8080}], "services[1].port"),
        ([{"name": "Web", "command": "x"}], "services[0].name"),
        ([{"name": "", "command": "x"}], "services[0].name"),
        ([{"name": "a" * 64, "command": "x"}], "services[0].name"),
        ([{"name": "web", "command": ""}], "services[0].command"),
        ([{"name": "web", "command": "a\0b"}], "services[0].command"),
        ([{"name": "web", "command": "x" * 16385}], "services[0].command"),
        ([WEB | {"port": 49}], "services[0].port"),  # the guest's
        ([WEB | {"port": 1023}], "services[0].port"),
        ([WEB | {"port": 65536}], "services[0].port"),
        ([WEB | {"workingDir": ""}], "services[0].workingDir"),
        ([WEB | {"env": {"A B": ""}}], "env"),
        ([WEB | {"env": {"A": "x" * 65537}}], "env.A"),
        ([WEB | {"env": {f"A{n}": "x" * 60000 for n in range(3)}}], "services"),
    ],
)
async def test_bad_services_are_refused_by_create_patch_and_fork(api: Api, services: object, field: str) -> None:
    session = await api.session()
    for path in ("/sessions/create", f"/sessions/{session}/fork"):
        refused = await api.call("POST", path, {"services": services})
        assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), field)
    refused = await patch(api, session, services)
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), field)


@pytest.mark.parametrize(
    "service", [{"name": "web"}, {"command": "x"}, WEB | {"restart": "sometimes"}, WEB | {"extra": 1}, "web", None]
)
async def test_services_of_another_shape_are_refused(api: Api, service: object) -> None:
    refused = await api.call("POST", "/sessions/create", {"services": [service]})
    assert refused.refusal == (400, "invalid_request")


async def test_a_fork_inherits_services_and_runs_its_own(api: Api) -> None:
    session = await api.session(services=[WEB])
    made = (await api.call("POST", f"/sessions/{session}/fork", {})).json["sessions"][0]["session"]["sessionId"]
    other = (await api.call("POST", f"/sessions/{session}/fork", {"services": [WORKER]})).json["sessions"]
    assert await states(api, made) == {"web": "running"}
    assert await states(api, other[0]["session"]["sessionId"]) == {"worker": "running"}
    assert (await shown(api, made))["web"]["processId"] != (await shown(api, session))["web"]["processId"]


async def test_a_restore_starts_them_on_the_other_files(api: Api) -> None:
    session = await api.session(services=[WEB])
    snapshot = (await api.call("POST", f"/sessions/{session}/snapshots", {})).json["snapshotId"]
    restored = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert restored.status == 200
    assert await states(api, session) == {"web": "running"}


async def test_they_count_as_processes_and_a_start_beyond_the_plan_is_refused() -> None:
    async with serving() as api:
        api.key = await api.account(name="few", processes_per_session=2)
        session = await api.session(services=[WEB])
        await act(api, session, "web", "stop")
        for _ in range(2):
            await api.call("POST", "/processes/start", {"sessionId": session, "command": "work"})
        assert (await act(api, session, "web", "start")).refusal == (429, "resource_limit_exceeded")


async def test_a_restart_beyond_the_plan_is_refused_and_the_service_runs_on() -> None:
    async with serving() as api:
        api.key = await api.account(name="few", processes_per_session=2)
        session = await api.session(services=[WEB])
        before = await shown(api, session)
        await api.call("POST", "/processes/start", {"sessionId": session, "command": "work"})
        again = await act(api, session, "web", "restart")
        assert (again.status, again.json["state"]) == (200, "running")
        await patch(api, session, [WEB, WORKER])  # the server starts it beyond the limit
        before = await shown(api, session)
        for name in ("web", "worker"):
            assert (await act(api, session, name, "restart")).refusal == (429, "resource_limit_exceeded")
        assert await shown(api, session) == before


async def test_a_server_that_was_killed_before_they_started_starts_them_later(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    await sandbox_of(api).services.stop("web", forget=True)
    api.lifecycle.services.forget(session)  # a new server knows nothing
    await api.lifecycle.services.resume()
    await eventually(lambda: "web" in sandbox_of(api).services.all)


async def test_a_start_looks_again_at_services_of_a_sandbox_that_was_out_of_reach(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.01)
    session = await api.session(services=[WEB])
    await shown(api, session)
    await sandbox_of(api).services.stop("web", forget=True)
    api.lifecycle.services.forget(session)  # a new server knows nothing
    get, tries = api.sandboxes.get, 0

    async def out_of_reach(sandbox_id: str) -> Sandbox | None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise errors.Unavailable("The session's host cannot act just now.")
        return await get(sandbox_id)

    monkeypatch.setattr(api.sandboxes, "get", out_of_reach)
    await api.lifecycle.services.resume()
    await eventually(lambda: "web" in sandbox_of(api).services.all)


@asynccontextmanager
async def slow_guest(api: Api, session: str, declared: object = (WORKER,)) -> AsyncIterator[None]:
    """Within the block, the session's guest does not say what runs in it, and a look at its services waits for that."""
    sandbox, answers = await api.sandboxes.get((await stored_of(api, session)).sandbox), asyncio.Event()
    assert isinstance(sandbox, FakeSandbox)
    listed = sandbox.services.list

    async def late() -> Sequence[ServiceStatus]:
        await answers.wait()
        return await listed()

    sandbox.services.list = late  # type: ignore[method-assign]
    try:
        await patch(api, session, declared)
        assert api.lifecycle.services.is_busy(session)
        yield
    finally:
        answers.set()


async def state_of(api: Api, session: str) -> State:
    return (await stored_of(api, session)).state


async def test_a_guest_that_answers_slowly_keeps_no_other_session_from_its_suspension(api: Api) -> None:
    slow, other = await api.session(services=[WEB]), await api.session()
    keeper = api.keeper(idle_after=300)
    async with slow_guest(api, slow):
        api.clock.now += 300
        async with asyncio.timeout(PATIENCE):
            await api.keep(keeper)
        assert (await state_of(api, slow), await state_of(api, other)) == (State.ACTIVE, State.IDLE)
    await eventually(lambda: not api.lifecycle.services.is_busy(slow))
    api.clock.now += 10
    await api.keep(keeper)
    assert await state_of(api, slow) is State.IDLE


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_sleep_that_a_client_asks_for_waits_for_a_slow_guest_for_a_limited_time(
    api: Api, depth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SETTLE_SECONDS", 0.05)
    session = await api.session(services=[WEB])
    async with slow_guest(api, session):
        async with asyncio.timeout(PATIENCE):
            refused = await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
        assert refused.refusal == (409, "session_busy")
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
    assert (slept.status, slept.json["state"]) == (200, depth)


async def test_what_a_killed_server_did_not_stop_is_stopped_by_the_next_one_at_the_first_use(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    sandbox = sandbox_of(api)
    with monkeypatch.context() as killed:
        killed.setattr(api.lifecycle.services, "look", lambda *_: None)
        await patch(api, session, None)
    api.lifecycle.services.forget(session)  # a new server knows nothing
    await api.lifecycle.services.resume()
    await use(api, session)
    await eventually(lambda: not sandbox.services.all and not api.lifecycle.services.is_busy(session))
    assert sandbox.processes.live == 0
    asked = count_lists(sandbox)
    await use(api, session)
    assert asked == []


async def test_a_new_session_without_services_is_not_looked_at(api: Api) -> None:
    await api.lifecycle.services.resume()
    session = await api.session()
    asked = count_lists(sandbox_of(api))
    await use(api, session)
    assert (asked, api.lifecycle.services.is_busy(session)) == ([], False)


async def use(api: Api, session: str) -> None:
    assert (await api.call("POST", "/execute", {"sessionId": session, "command": "echo hi"})).status == 200


def count_lists(sandbox: FakeSandbox) -> list[str]:
    """One entry for each time that the guest is asked for its services, from now on."""
    asked, listed = list[str](), sandbox.services.list

    async def counted() -> Sequence[ServiceStatus]:
        asked.append(sandbox.id)
        return await listed()

    sandbox.services.list = counted  # type: ignore[method-assign]
    return asked


# --- previews ---


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "SERVICE_SECONDS", 0.2)
    monkeypatch.setattr(previews, "ASK_SECONDS", 0.02)


async def test_a_preview_of_a_declared_port_waits_until_something_listens(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    asking = asyncio.create_task(api.ask(host_of(session)))
    await asyncio.sleep(0.1)
    assert not asking.done()
    sandbox_of(api).processes.listens(8080)
    assert (await asking).status == 200


async def test_after_a_wait_that_is_too_long_the_visitor_is_asked_to_come_back(api: Api, short: None) -> None:
    session = await api.session(services=[WEB])
    late = await api.ask(host_of(session))
    assert (late.refusal, late.headers["Retry-After"]) == ((503, "unavailable"), "1")
    assert "The service web does not listen on port 8080 yet." in late.error["message"]


async def test_a_guest_that_answers_slowly_does_not_make_a_visitor_wait_for_longer(api: Api, short: None) -> None:
    session = await api.session(services=[WEB])
    async with slow_guest(api, session, [WEB, WORKER]), asyncio.timeout(PATIENCE):
        late = await api.ask(host_of(session))
    assert (late.refusal, late.headers["Retry-After"]) == ((503, "unavailable"), "1")


async def test_the_guest_is_asked_once_for_all_visitors_who_wait(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    asked, sandbox = count_lists(sandbox_of(api)), sandbox_of(api)
    found = await asyncio.gather(*(api.lifecycle.services.shared_list(session, sandbox) for _ in range(5)))
    assert ([[*one] for one in found], len(asked)) == ([["web"]] * 5, 1)
    await api.lifecycle.services.shared_list(session, sandbox)
    assert len(asked) == 2


async def test_visitors_share_a_look_at_a_port_but_not_one_from_before_the_edge_found_nothing(
    api: Api, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "SHARED_SECONDS", 60.0)
    session = await api.session(services=[WEB])
    await shown(api, session)
    looks, sockets = list[int](), {1}

    async def counted(port: int) -> Set[int]:
        looks.append(port)
        return sockets

    sandbox_of(api).processes.listeners = counted  # type: ignore[method-assign]
    assert [(await api.ask(host_of(session))).status for _ in range(5)] == [200] * 5
    assert looks == [8080]
    sockets.clear()
    late = await api.ask(host_of(session), path="/nothing")
    assert "does not listen on port 8080 yet" in late.error["message"]


@pytest.mark.parametrize("path", ["/admit", "/nothing"])
async def test_a_port_of_a_service_that_is_not_started_again_is_not_waited_for(api: Api, path: str) -> None:
    session = await api.session(services=[WEB | {"restart": "never"}])
    await shown(api, session)
    sandbox_of(api).services.ends("web", 3)
    refused = await api.ask(host_of(session), path=path)
    assert refused.refusal == (502, "unavailable")
    assert "The service web, which declares port 8080, has ended with exit code 3." in refused.error["message"]
    await act(api, session, "web", "start")
    await act(api, session, "web", "stop")
    assert "was stopped" in (await api.ask(host_of(session), path=path)).error["message"]


async def test_a_service_that_has_crashed_is_waited_for_when_the_edge_finds_nothing(api: Api) -> None:
    session = await api.session(services=[WEB])
    await shown(api, session)
    asking = asyncio.create_task(api.ask(host_of(session), path="/nothing"))
    await asyncio.sleep(0.1)
    assert not asking.done()
    sandbox_of(api).processes.listens(8080)
    assert (await asking).status in (502, 503)


async def test_other_ports_are_not_waited_for(api: Api) -> None:
    session = await api.session(preview={"visibility": "public", "ports": [3000]}, services=[WEB])
    assert (await api.ask(host_of(session, 3000))).status == 200


async def test_services_stay_with_the_stored_session(api: Api) -> None:
    session = await api.session(services=[WEB])
    (web,) = (await stored_of(api, session)).services
    assert (web.name, web.command, web.port, web.restart) == ("web", "serve", 8080, "always")
    assert web.working_dir == "/workspace"
