import base64

import pytest

from buntime.plan import MB
from buntime.ports import Run, RunResult
from buntime.testing.sandboxes import FakeSandbox, Runner, result
from tests.app.serving import Api, serving


async def test_a_command_runs_to_its_end(api: Api) -> None:
    session = await api.session()
    answer = await api.call("POST", "/execute", {"sessionId": session, "command": "echo hello"})
    assert answer.json == {
        "stdout": "hello\n",
        "stderr": "",
        "exitCode": 0,
        "executionTime": 5,
        "memoryUsed": 12 * MB,
        "cpuTime": 4,
        "timedOut": False,
        "filesWritten": [],
    }


async def test_every_field_of_the_request_reaches_the_run(api: Api) -> None:
    session = await api.session(env={"A": "session", "B": "kept"})

    async def run(command: str, **fields: object) -> str:
        answer = await api.call("POST", "/execute", {"sessionId": session, "command": command, **fields})
        stdout: str = answer.json["stdout"]
        return stdout

    assert await run("printenv A", env={"A": "run"}) == "run\n"
    assert await run("printenv B") == "kept\n"
    assert await run("cat", stdin="a\u0000é") == "a\u0000é"
    files = [{"path": "sub/x", "content": base64.b64encode(b"\x00bin").decode(), "encoding": "base64", "mode": "755"}]
    assert await run("cat x", workingDir="sub", files=files) == "\x00bin"
    sandbox = next(iter(api.sandboxes.volumes.values()))
    assert sandbox.files["/workspace/sub/x"].mode == 0o755


async def test_a_failed_or_timed_out_program_is_a_result_and_no_error(api: Api) -> None:
    session = await api.session()
    failed = (await api.call("POST", "/execute", {"sessionId": session, "command": "exit 3"})).json
    late = (await api.call("POST", "/execute", {"sessionId": session, "command": "sleep 9", "timeout": 1})).json
    assert (failed["exitCode"], failed["timedOut"]) == (3, False)
    assert (late["exitCode"], late["timedOut"]) == (124, True)


async def test_files_written_are_those_of_the_run_and_of_the_request_under_workspace(api: Api) -> None:
    files = [{"path": path, "content": ""} for path in ("b", "/etc/x", "node_modules/m", "c/.git/d")]
    body = {"sessionId": await api.session(), "command": "touch a", "files": files}
    assert (await api.call("POST", "/execute", body)).json["filesWritten"] == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "code"),
        ({"code": "1", "command": "x"}, "code"),
        ({"code": "a\u0000"}, "code"),
        ({"code": None}, "code"),
        ({"code": "1", "timeout": 0}, "timeout"),
        ({"code": "1", "timeout": 301}, "timeout"),
        ({"code": "1", "workingDir": ""}, "workingDir"),
        ({"code": "1", "files": [{"path": "", "content": ""}]}, "files[0].path"),
        ({"code": "1", "files": [{"path": "a", "content": ""}, {"path": "x/../a", "content": ""}]}, "files[1].path"),
        ({"code": "1", "files": [{"path": "a", "content": "!", "encoding": "base64"}]}, "files[0].content"),
        ({"code": "1", "files": [{"path": "a", "content": "YQ", "encoding": "base64"}]}, "files[0].content"),
        ({"code": "1", "files": [{"path": "a", "content": "YQ==\n", "encoding": "base64"}]}, "files[0].content"),
        ({"code": "1", "files": [{"path": "a", "content": "é", "encoding": "base64"}]}, "files[0].content"),
        ({"code": "1", "files": [{"path": "a", "content": "", "encoding": "utf-16"}]}, "files[0].encoding"),
        ({"code": "1", "files": [{"path": "a", "content": "", "mode": "888"}]}, "files[0].mode"),
        ({"code": "1", "files": [{"path": str(n), "content": "?"} for n in range(1001)]}, "files"),
    ],
)
async def test_a_refused_run_names_the_wrong_field(api: Api, fields: dict[str, object], field: str) -> None:
    answer = await api.call("POST", "/execute", {"sessionId": await api.session(), **fields})
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["details"]["field"] == field


async def test_a_file_over_the_plans_limit_is_too_large_in_either_encoding(api: Api) -> None:
    key = await api.account("free", "small", file_mb=1)
    session = (await api.call("POST", "/sessions/create", key=key)).json["sessionId"]
    whole, more = b"x" * MB, b"x" * (MB + 1)
    for content, status in ((whole, 200), (more, 413)):
        for encoding, text in (("utf8", content.decode()), ("base64", base64.b64encode(content).decode())):
            body = {"sessionId": session, "path": "a", "content": text, "encoding": encoding}
            answer = await api.call("POST", "/files/write", body, key=key)
            assert answer.status == status
    assert answer.error["details"] == {"plan": "free", "limit": MB, "path": "a"}


async def test_an_unknown_session_is_not_found(api: Api) -> None:
    for session in ("ses_" + "0" * 18, "x" * 100_000, ""):
        answer = await api.call("POST", "/execute", {"sessionId": session, "code": "1"})
        assert answer.refusal == (404, "session_not_found")
        assert len(answer.body) < 1000


def _running(made: RunResult) -> Runner:
    async def run(asked: Run, sandbox: FakeSandbox) -> RunResult:
        return made

    return run


async def test_a_run_that_reached_its_memory_or_disk_limit_is_507_with_its_output() -> None:
    for flag, code in (("out_of_memory", "memory_limit_exceeded"), ("disk_full", "disk_full")):
        async with serving(_running(result(b"partial", b"why", 137, **{flag: True}))) as api:
            answer = await api.call("POST", "/execute", {"sessionId": await api.session(), "code": "1"})
            assert answer.refusal == (507, code)
            assert answer.error["details"] == {"limit": 1024, "stdout": "partial", "stderr": "why", "exitCode": 137}
            assert "1024 MB" in answer.error["message"]


async def test_truncated_output_is_marked_and_output_that_is_not_text_is_shown() -> None:
    made = result(b"\xff" * (10 * MB), truncated=True, files_written=["\ud800"], files_written_truncated=True)
    async with serving(_running(made)) as api:
        answer = await api.call("POST", "/execute", {"sessionId": await api.session(), "code": "1"})
    assert answer.json["stdout"] == "\ufffd" * (10 * MB)
    assert answer.json["truncated"] is True
    assert answer.json["filesWrittenTruncated"] is True


async def test_only_a_run_that_reached_the_process_limit_says_so() -> None:
    for met in (True, False):
        async with serving(_running(result(met_process_limit=met))) as api:
            answer = await api.call("POST", "/execute", {"sessionId": await api.session(), "code": "1"})
        assert answer.json.get("processLimitExceeded") is (True if met else None)


async def test_an_ended_runtime_is_an_invalid_state_and_restarts(api: Api) -> None:
    session = await api.session()

    async def ends(run: Run, sandbox: FakeSandbox) -> RunResult:
        await api.sandboxes.kill(sandbox.id)
        return await sandbox.run(run)

    next(iter(api.sandboxes.running.values()))._runner = ends
    body = {"sessionId": session, "command": "echo again"}
    assert (await api.call("POST", "/execute", body)).refusal == (409, "invalid_state")
    assert (await api.call("POST", "/execute", body)).json["stdout"] == "again\n"
