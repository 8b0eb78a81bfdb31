"""Contexts through the API, on top of the fakes."""

from typing import Any

import pytest

from buntime.ports import Sandbox
from tests.app.serving import Answer, Api


async def _context(api: Api, session: str, **fields: object) -> str:
    answer = await api.call("POST", "/contexts/create", {"sessionId": session, **fields})
    assert answer.status == 200, answer.body
    return str(answer.json["contextId"])


async def _run(api: Api, session: str, context: str, code: str, **fields: object) -> Answer:
    return await api.call("POST", "/execute", {"sessionId": session, "contextId": context, "code": code, **fields})


def _only(api: Api) -> Any:
    sandbox: Sandbox = next(iter(api.sandboxes.running.values()))
    return sandbox.contexts


async def test_a_context_keeps_variables(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    assert (await _run(api, session, context, "let a = 5")).json == {
        "stdout": "",
        "stderr": "",
        "exitCode": 0,
        "executionTime": 2,
        "memoryUsed": 40 << 20,
        "cpuTime": 1,
        "timedOut": False,
        "filesWritten": [],
        "result": None,
        "displayed": [],
    }
    assert (await _run(api, session, context, "a")).json["result"] == {"text": "5", "json": 5}
    assert (await _run(api, session, context, "display(2)")).json["displayed"] == [{"text": "2", "json": 2}]


async def test_an_exception_is_reported_with_whether_variables_survived(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    threw = (await _run(api, session, context, 'throw new Error("no")')).json
    assert (threw["exitCode"], threw["error"]["name"], threw["error"]["message"]) == (1, "Error", "no")
    assert "contextSurvived" not in threw
    late = (await _run(api, session, context, "for (;;) {}")).json
    assert (late["exitCode"], late["timedOut"], late["contextSurvived"]) == (124, True, True)
    killed = (await _run(api, session, context, "Bun.sleepSync(1e9)")).json
    assert (killed["exitCode"], killed["timedOut"], killed["contextSurvived"]) == (124, True, False)
    lost = await _run(api, session, context, "1")
    assert (lost.status, lost.error["code"], lost.error["details"]["reason"]) == (409, "context_lost", "timeout")


async def test_a_context_gets_the_environment_of_the_session_and_its_own(api: Api) -> None:
    session = await api.session(env={"A": "session", "B": "kept"})
    await _context(api, session, env={"A": "own"}, workingDir="sub")
    new = _only(api).made[0]
    assert (dict(new.env), new.working_dir) == ({"A": "own", "B": "kept"}, "/workspace/sub")


async def test_contexts_are_listed_and_deleted(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    await _run(api, session, context, "let a = 5")
    listed = (await api.call("GET", f"/contexts/list?sessionId={session}")).json
    assert listed == {
        "contexts": [
            {
                "contextId": context,
                "createdAt": "2024-01-19T10:30:00Z",
                "workingDir": "/workspace",
                "status": "running",
                "reason": None,
                "runs": 1,
            }
        ]
    }
    path = f"/contexts/delete?sessionId={session}&contextId={context}"
    assert (await api.call("DELETE", path)).json == {"deleted": True, "contextId": context}
    assert (await api.call("DELETE", path)).error["code"] == "context_not_found"
    assert (await _run(api, session, context, "1")).status == 404
    assert (await api.call("GET", f"/contexts/list?sessionId={session}")).json == {"contexts": []}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"code": None, "command": "true"}, "command"),
        ({"env": {"A": "b"}}, "env"),
        ({"workingDir": "sub"}, "workingDir"),
        ({"stdin": "x"}, "stdin"),
        ({"stream": True, "detach": True}, "detach"),
        ({"timeout": 0}, "timeout"),
        ({"code": "a\0b"}, "code"),
    ],
)
async def test_a_run_in_a_context_refuses_fields_that_it_does_not_have(
    api: Api, fields: dict[str, object], field: str
) -> None:
    session = await api.session()
    context = await _context(api, session)
    body = {"sessionId": session, "contextId": context, "code": "1", **fields}
    answer = await api.call("POST", "/execute", {name: value for name, value in body.items() if value is not None})
    assert (answer.status, answer.error["details"]["field"]) == (400, field)


@pytest.mark.parametrize("context", ["", "ctx_1", "ctx_" + "a" * 18, "ctx_" + "A" * 18])
async def test_an_unknown_context_is_not_found(api: Api, context: str) -> None:
    session = await api.session()
    assert (await _run(api, session, context, "1")).error["code"] == "context_not_found"
    assert (await _run(api, session, context, "1", stream=True)).error["code"] == "context_not_found"


async def test_the_number_of_contexts_is_limited(api: Api) -> None:
    session = await api.session()
    for _ in range(16):
        await _context(api, session)
    refused = await api.call("POST", "/contexts/create", {"sessionId": session})
    assert (refused.status, refused.error["code"]) == (429, "resource_limit_exceeded")
    assert refused.error["details"]["resource"] == "contexts"
    assert refused.error["message"].endswith("Delete one first.")


async def test_one_idempotency_key_creates_one_context(api: Api) -> None:
    session = await api.session()
    answers = [
        await api.call("POST", "/contexts/create", {"sessionId": session}, Idempotency_Key="k") for _ in range(2)
    ]
    assert answers[0].json == answers[1].json
    assert len(_only(api).made) == 1


async def test_a_streamed_run_ends_with_its_result(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    await _run(api, session, context, "let a = 5")
    body = (await _run(api, session, context, "display(2)", stream=True)).body.decode()
    assert 'event: displayed\ndata: {"text":"2","json":2}\n\n' in body
    ended = (await _run(api, session, context, "a", stream=True)).body.decode()
    assert ended.count("event: result\n") == 1
    assert '"result":{"text":"5","json":5}' in ended


async def test_deep_sleep_ends_contexts_and_says_so(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    await _only(api).ending()
    for stream in (False, True):
        lost = await _run(api, session, context, "1", stream=stream)
        assert (lost.status, lost.error["details"]["reason"]) == (409, "deep_sleep")
    listed = (await api.call("GET", f"/contexts/list?sessionId={session}")).json["contexts"]
    assert [(one["status"], one["reason"]) for one in listed] == [("lost", "deep_sleep")]


async def test_code_that_is_too_long_is_refused(api: Api) -> None:
    session = await api.session()
    context = await _context(api, session)
    assert (await _run(api, session, context, " " * (4 << 20) + "1")).error["code"] == "payload_too_large"
