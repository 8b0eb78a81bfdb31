"""Processes over HTTP, on top of the fakes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from buntime.ports import Run, RunResult
from buntime.session import State
from buntime.testing.processes import FakeProcesses
from buntime.testing.sandboxes import FakeSandbox, result, small_shell
from tests.app.serving import Api, serving
from tests.waiting import eventually

SECONDS = 10  # a guard against a hang


def fake(api: Api) -> FakeProcesses:
    return next(iter(api.sandboxes.running.values())).processes


async def start(api: Api, session: str, command: str = "run", **fields: object) -> Any:
    answer = await api.call("POST", "/processes/start", {"sessionId": session, "command": command, **fields})
    assert answer.status == 200, answer.body
    return answer.json


@asynccontextmanager
async def following(api: Api, path: str, body: object = None, **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
    """Yields events as (name, id, data)."""
    sent = {"Authorization": f"Bearer {api.key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = api.http.request("GET" if body is None else "POST", api.url + path, json=body, headers=sent)
    async with asyncio.timeout(SECONDS), request as answer:
        assert answer.status == 200, await answer.read()
        yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    while block := await answer.content.readuntil(b"\n\n"):
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
        if "event" in fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])


def logs_path(session: str, process: str, **query: object) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"/processes/logs?sessionId={session}&processId={process}{more}"


async def test_a_process_is_started_and_found(api: Api) -> None:
    session = await api.session(env={"A": "session"})
    begun = await start(api, session, "run it", name="mine", env={"B": "own"}, workingDir="sub", timeout=9)
    assert begun == {
        "processId": begun["processId"],
        "pid": 100,
        "status": "running",
        "exitCode": None,
        "reason": None,
        "startedAt": "2024-01-19T10:30:00Z",
        "endedAt": None,
        "command": "run it",
        "name": "mine",
    }
    new = fake(api).all[begun["processId"]].new
    assert (new.env, new.working_dir, new.timeout) == ({"A": "session", "B": "own"}, "/workspace/sub", 9)
    assert (new.log_bytes, new.all_log_bytes) == (16 << 20, 64 << 20)
    query = f"?sessionId={session}&processId={begun['processId']}"
    assert (await api.call("GET", "/processes/get" + query)).json == begun
    code = (await api.call("POST", "/processes/start", {"sessionId": session, "code": "1"})).json
    api.clock.now += 1
    later = await start(api, session, "exit 3")
    listed = (await api.call("GET", f"/processes/list?sessionId={session}&limit=2")).json
    assert (listed["total"], listed["processes"][0]["processId"]) == (3, later["processId"])
    assert listed["processes"][0]["exitCode"] == 3
    assert {code["processId"], begun["processId"]} > {listed["processes"][1]["processId"]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "code"),
        ({"code": "1", "command": "x"}, "code"),
        ({"command": "a\u0000"}, "command"),
        ({"command": "x", "name": ""}, "name"),
        ({"command": "x", "name": "n" * 201}, "name"),
        ({"command": "x", "timeout": 0}, "timeout"),
        ({"command": "x", "timeout": 604801}, "timeout"),
        ({"command": "x", "workingDir": ""}, "workingDir"),
        ({"command": "x", "env": {"a b": "c"}}, "env"),
        ({"command": "x", "waitFor": {}}, "waitFor"),
        ({"command": "x", "waitFor": {"port": 1, "output": "x"}}, "waitFor"),
        ({"command": "x", "waitFor": {"port": 0}}, "waitFor.port"),
        ({"command": "x", "waitFor": {"port": 65536}}, "waitFor.port"),
        ({"command": "x", "waitFor": {"output": ""}}, "waitFor.output"),
        ({"command": "x", "waitFor": {"output": "x" * 1001}}, "waitFor.output"),
        ({"command": "x", "waitFor": {"port": 1, "timeout": 301}}, "waitFor.timeout"),
        ({"command": "x", "stdin": "x"}, "stdin"),
    ],
)
async def test_a_refused_start_names_the_wrong_field(api: Api, fields: dict[str, object], field: str) -> None:
    session = await api.session()
    answer = await api.call("POST", "/processes/start", {"sessionId": session, **fields})
    assert answer.refusal == (400, "invalid_request")
    assert answer.error["details"]["field"] == field
    assert fake(api).all == {}


async def test_a_start_can_wait_for_a_port(api: Api) -> None:
    session = await api.session()
    waiting = asyncio.create_task(start(api, session, waitFor={"port": 8080}))
    await eventually(lambda: fake(api).live)
    fake(api).listens(8080)
    told = await waiting
    assert (told["ready"], "portWasInUse" in told) == (True, False)
    ended = await start(api, session, "exit 3", waitFor={"port": 9})
    assert (ended["ready"], ended["status"], ended["exitCode"]) == (False, "exited", 3)
    late = await start(api, session, waitFor={"port": 9, "timeout": 1})
    assert (late["ready"], late["status"]) == (False, "running")


SERVE = "python3 -m http.server 8080"


async def test_a_process_whose_port_is_taken_is_not_ready_and_says_why(api: Api) -> None:
    session = await api.session()
    first = await start(api, session, SERVE, waitFor={"port": 8080})
    assert (first["ready"], first["status"], first.get("portWasInUse")) == (True, "running", None)
    second = await start(api, session, SERVE, waitFor={"port": 8080})
    assert (second["ready"], second["status"], second["exitCode"], second["portWasInUse"]) == (False, "exited", 1, True)
    elsewhere = await start(api, session, waitFor={"port": 8080, "timeout": 1})
    assert (elsewhere["ready"], elsewhere["status"], elsewhere["portWasInUse"]) == (False, "running", True)


async def test_a_process_that_takes_a_port_over_is_ready(api: Api) -> None:
    session = await api.session()
    fake(api).listens(8080)
    waiting = asyncio.create_task(start(api, session, waitFor={"port": 8080}))
    await eventually(lambda: fake(api).live)
    fake(api).listens(8080)  # as with SO_REUSEPORT, or after the other has ended
    told = await waiting
    assert (told["ready"], "portWasInUse" in told) == (True, False)


async def test_a_repeated_start_gets_the_same_answer_though_its_port_is_taken_now(api: Api) -> None:
    body = {"sessionId": await api.session(), "command": SERVE, "waitFor": {"port": 8080}}
    key = {"Idempotency_Key": "once"}
    first = await api.call("POST", "/processes/start", body, **key)
    again = await api.call("POST", "/processes/start", body, **key)
    assert (first.status, first.json["ready"]) == (200, True)
    assert again.json == first.json


async def test_a_start_can_wait_for_a_line_that_is_searched_for_inside_the_session() -> None:
    async def rg(run: Run, sandbox: FakeSandbox) -> RunResult:
        if not (run.command or "").startswith("exec /usr/bin/rg"):
            return await small_shell(run, sandbox)
        pattern = run.env["PATTERN"]
        if pattern == "(":
            return result(stderr=b"unclosed group", exit_code=2)
        return result(exit_code=0 if pattern.encode() in run.stdin else 1)

    async with serving(rg) as api:
        session = await api.session()
        waiting = asyncio.create_task(start(api, session, waitFor={"output": "ready"}))
        await eventually(lambda: fake(api).live)
        process = next(iter(fake(api).all.values()))
        process.says(b"not re")
        process.says(b"ady\nre", "stderr")
        await asyncio.sleep(0.3)
        assert not waiting.done()
        process.says(b"ady\n", "stderr")
        assert (await waiting)["ready"] is True
        assert (await start(api, session, "echo ever", waitFor={"output": "never"}))["ready"] is False
        bad = {"sessionId": session, "command": "run", "waitFor": {"output": "("}}
        refused = await api.call("POST", "/processes/start", bad)
        assert refused.refusal == (400, "invalid_request")
        assert "unclosed group" in refused.error["message"]


async def test_input_and_signals_reach_the_process(api: Api) -> None:
    session = await api.session()
    where = {"sessionId": session, "processId": (await start(api, session))["processId"]}
    await api.call("POST", "/processes/input", {**where, "data": "é"})
    raw = base64.b64encode(b"\xff").decode()
    await api.call("POST", "/processes/input", {**where, "data": raw, "encoding": "base64"})
    page = (await api.call("GET", logs_path(session, where["processId"]))).json
    assert [entry["data"] for entry in page["entries"]] == ["é\ufffd"]
    assert (page["cursor"], page["dropped"], page["status"]) == (3, 0, "running")
    for data in ("!", "YQ", "YQ==\n"):
        bad = await api.call("POST", "/processes/input", {**where, "data": data, "encoding": "base64"})
        assert (bad.refusal, bad.error["details"]["field"]) == ((400, "invalid_request"), "data")
    large = await api.call("POST", "/processes/input", {**where, "data": "x" * ((1 << 20) + 1)})
    assert large.refusal == (413, "payload_too_large")
    assert (await api.call("POST", "/processes/signal", {**where, "signal": "SIGUSR1"})).json["status"] == "running"
    assert (await api.call("POST", "/processes/signal", {**where, "signal": "SIGSEGV"})).status == 400
    assert (await api.call("POST", "/processes/signal", where)).json["exitCode"] == 143
    for path, more in (("signal", {}), ("input", {"data": "x"})):
        assert (await api.call("POST", f"/processes/{path}", {**where, **more})).refusal == (409, "invalid_state")


@pytest.mark.parametrize("process", ["proc_000000000000000000", "proc_x", "x" * 5000, "../x"])
async def test_a_missing_process_is_not_found(api: Api, process: str) -> None:
    session = await api.session()
    body = {"sessionId": session, "processId": process}
    query = f"?sessionId={session}&processId={process}"
    for method, path, sent in (
        ("GET", f"/processes/get{query}", None),
        ("GET", f"/processes/logs{query}", None),
        ("GET", f"/processes/logs{query}&follow=true", None),
        ("POST", "/processes/signal", body),
        ("POST", "/processes/input", body),
    ):
        assert (await api.call(method, path, sent)).refusal == (404, "process_not_found"), path


async def test_processes_of_another_accounts_session_are_not_found(api: Api) -> None:
    session = await api.session()
    process = (await start(api, session))["processId"]
    other = await api.account(name="two")
    for path in (f"/processes/list?sessionId={session}", logs_path(session, process, follow="true")):
        assert (await api.call("GET", path, key=other)).refusal == (404, "session_not_found")


async def test_logs_are_followed_from_a_cursor_or_the_last_event(api: Api) -> None:
    session = await api.session()
    process_id = (await start(api, session))["processId"]
    process = fake(api).all[process_id]
    process.says(b"one\n")
    process.says(b"\xe2\x82\xac\n", "stderr")
    time = "2024-01-19T10:30:00Z"
    whole = [
        ("stdout", "4", {"data": "one\n", "time": time}),
        ("stderr", "8", {"data": "€\n", "time": time}),
        ("exit", "8", {"status": "exited", "exitCode": 2, "reason": None}),
    ]
    async with following(api, logs_path(session, process_id, follow="true")) as events:
        assert [await anext(events), await anext(events)] == whole[:2]
        process.ends(2)
        assert await anext(events) == whole[2]
    async with following(api, logs_path(session, process_id, follow="true", cursor=4)) as events:
        assert await anext(events) == whole[1]
    async with following(api, logs_path(session, process_id, follow="true"), last_event_id="4") as events:
        assert await anext(events) == whole[1]
    for cursor, last in ((3, ""), (9, ""), (0, "x"), (0, "-1"), (0, "9" * 16)):
        headers = {"Last_Event_ID": last} if last else {}
        refused = await api.call("GET", logs_path(session, process_id, cursor=cursor, follow="true"), **headers)
        assert refused.refusal == (400, "invalid_request"), (cursor, last)


async def test_the_number_of_dropped_bytes_is_reported(api: Api) -> None:
    key = await api.account(name="small", log_mb_per_session=0)
    api.key = key
    session = await api.session()
    process_id = (await start(api, session))["processId"]
    process = fake(api).all[process_id]
    process.says(b"first")
    process.says(b"2")
    async with following(api, logs_path(session, process_id, follow="true")) as events:
        assert await anext(events) == ("dropped", "5", {"bytes": 5})
        assert (await anext(events))[:2] == ("stdout", "6")
    assert (await api.call("GET", logs_path(session, process_id))).json["dropped"] == 5


async def test_following_logs_does_not_keep_the_session_awake(api: Api) -> None:
    session = await api.session()
    process_id = (await start(api, session))["processId"]
    async with following(api, logs_path(session, process_id, follow="true")):
        asleep = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})
        assert asleep.json["state"] == State.IDLE


async def test_processes_are_limited_by_session_and_account(api: Api) -> None:
    api.key = await api.account(name="few", processes_per_session=2, processes_per_account=3)
    one, two = await api.session(), await api.session()
    for session in (one, one, two):
        await start(api, session)
    refused = await api.call("POST", "/processes/start", {"sessionId": one, "command": "run"})
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"]["scope"] == "session"
    refused = await api.call("POST", "/processes/start", {"sessionId": two, "command": "run"})
    assert refused.error["details"] == {"resource": "processes", "limit": 3, "scope": "account", "plan": "paid"}


async def test_two_starts_at_once_do_not_exceed_the_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.key = await api.account(name="few", processes_per_session=1)
    session, read = await api.session(), api.store.account_sandboxes

    async def slow(account_id: str) -> Sequence[str]:
        found = await read(account_id)
        await asyncio.sleep(0.05)
        return found

    monkeypatch.setattr(api.store, "account_sandboxes", slow)
    body = {"sessionId": session, "command": "run"}
    answers = await asyncio.gather(*(api.call("POST", "/processes/start", body) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 429]


async def test_open_streams_are_limited(api: Api) -> None:
    api.key = await api.account(name="few", streams_per_session=1)
    session = await api.session()
    path = logs_path(session, (await start(api, session))["processId"], follow="true")
    async with following(api, path):
        assert (await api.call("GET", path)).refusal == (429, "resource_limit_exceeded")


async def test_one_idempotency_key_starts_one_process(api: Api) -> None:
    session = await api.session()
    body = {"sessionId": session, "command": "run"}
    one, two = [await api.call("POST", "/processes/start", body, Idempotency_Key="k") for _ in range(2)]
    assert one.json == two.json
    assert two.headers["Idempotent-Replayed"] == "true"
    assert len(fake(api).all) == 1


async def test_a_detached_run_is_a_process(api: Api) -> None:
    session = await api.session()
    body = {"sessionId": session, "command": "run", "stream": True, "detach": True, "stdin": "in", "timeout": 7}
    files = [{"path": "a", "content": "b"}]
    async with following(api, "/execute", {**body, "files": files}) as events:
        name, _, data = await anext(events)
        assert name == "process"
        process = fake(api).all[data["processId"]]
        assert (process.new.stdin, process.new.timeout) == (b"in", 7)
        process.says(b"out")
        assert await anext(events) == ("stdout", None, {"data": "out"})
        process.ends(5)
        name, _, data = await anext(events)
        assert (name, data["exitCode"], data["filesWritten"], data["timedOut"]) == ("result", 5, ["a"], False)
    async with following(api, "/execute", body) as events:
        process = fake(api).all[(await anext(events))[2]["processId"]]
    await asyncio.sleep(0.05)
    assert process.now.status == "running"
    refused = await api.call("POST", "/execute", {"sessionId": session, "command": "run", "detach": True})
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "detach")
