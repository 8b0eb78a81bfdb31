"""Commands with a fake server, for answers that a real server gives only by chance."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import pytest
from buntime_cli.app import app
from buntime_sdk import Buntime
from typer.testing import CliRunner, Result

FIRST, SECOND = "ses_abcd11111111111111", "ses_abcd22222222222222"
GONE = {"error": {"code": "session_not_found", "message": "No session.", "retryable": False, "details": {}}}
FULL = {"error": {"code": "unavailable", "message": "No room.", "retryable": True, "details": {"retryAfter": 7}}}
RESULT = {
    **{"exitCode": 3, "executionTime": 1, "memoryUsed": 1, "cpuTime": 1, "timedOut": False, "filesWritten": []},
}

type Answer = tuple[int, Any]


def session(session_id: str, **fields: object) -> dict[str, object]:
    times = {"createdAt": "2024-01-19T10:30:00Z", "expiresAt": "2034-01-20T10:30:00Z"}
    counts = {"lastActive": "2024-01-19T10:30:00Z", "filesCount": 2, "activeProcesses": 1}
    limits = {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}
    url = f"http://{session_id.replace('_', '-')}.localhost:8000"
    shown = {"sessionId": session_id, "state": "active", "metadata": {}, "previewUrl": url, "resourceLimits": limits}
    return {**shown, **times, **counts, **fields}


class Server:
    """Answers by method and path. Records requests in `asked`."""

    def __init__(self, answers: Mapping[str, Answer | Callable[[httpx2.Request], Answer]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        asked = f"{request.method} {request.url.path}"
        self.asked.append(asked)
        found = self._answers[asked]
        status, body = found(request) if callable(found) else found
        if isinstance(body, str):
            return httpx2.Response(status, text=body, headers={"content-type": "text/event-stream"})
        return httpx2.Response(status, json=body)

    def runs(self, *words: str) -> Result:
        transport = httpx2.MockTransport(self.answer)
        with Buntime("btk_key", "http://test", transport=transport, max_retries=0) as client:
            return CliRunner().invoke(app, words, obj=client)


def listed(*sessions: dict[str, object]) -> Answer:
    return 200, {"sessions": list(sessions), "total": len(sessions)}


def test_an_ambiguous_beginning_names_both_sessions_and_deletes_none() -> None:
    server = Server({"GET /sessions": listed(session(FIRST), session(SECOND))})
    done = server.runs("rm", "ses_abcd")
    assert done.exit_code == 1
    assert done.stderr == f"buntime: ses_abcd could be {FIRST} or {SECOND}. Write more of the id.\n"
    assert server.asked == ["GET /sessions"]


def test_an_ambiguous_name_names_both_sessions() -> None:
    def named(request: httpx2.Request) -> Answer:
        assert request.url.params["metadata.name"] == "twin"
        return listed(session(FIRST), session(SECOND))

    done = Server({"GET /sessions": named}).runs("wake", "twin")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"twin could be {FIRST} or {SECOND}" in done.stderr


def test_a_complete_id_needs_no_request() -> None:
    server = Server({f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST})})
    assert server.runs("rm", FIRST).stdout == f"{FIRST}\n"
    assert server.asked == [f"DELETE /sessions/{FIRST}"]


def test_rm_all_ignores_a_session_that_just_expired() -> None:
    server = Server(
        {
            "GET /sessions": listed(session(FIRST), session(SECOND)),
            f"DELETE /sessions/{FIRST}": (404, GONE),
            f"DELETE /sessions/{SECOND}": (200, {"deleted": True, "sessionId": SECOND}),
        }
    )
    done = server.runs("rm", "--all", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"deleted": [FIRST, SECOND]})


def test_a_named_session_that_is_gone_is_an_error() -> None:
    done = Server({f"DELETE /sessions/{FIRST}": (404, GONE)}).runs("rm", FIRST)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "buntime: No session. List sessions with: buntime ls\n"


def test_an_error_says_when_to_retry() -> None:
    done = Server({"POST /sessions/create": (503, FULL)}).runs("create")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "buntime: No room. Try again in 7 s.\n"


@pytest.mark.parametrize(
    ("deleted", "said"),
    [
        ((200, {"deleted": True, "sessionId": FIRST}), ""),
        ((404, GONE), ""),
        ((503, FULL), f"buntime: {FIRST} could not be deleted and expires within an hour: No room.\n"),
    ],
)
def test_a_run_keeps_its_exit_status_even_if_its_session_is_not_deleted(
    deleted: Answer, said: str, tmp_path: Any
) -> None:
    (tmp_path / "a.ts").write_text("process.exit(3)")
    events = f'event: stdout\ndata: {{"data": "out\\n"}}\n\nevent: result\ndata: {json.dumps(RESULT)}\n\n'
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (200, {"path": "a.ts", "size": 1}),
            "POST /execute": (200, events),
            f"DELETE /sessions/{FIRST}": deleted,
        }
    )
    done = server.runs("run", "--no-stdin", str(tmp_path / "a.ts"))
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", said)
    assert server.asked[-1] == f"DELETE /sessions/{FIRST}"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_run_that_reached_the_process_limit_says_so(arguments: tuple[str, ...], tmp_path: Any) -> None:
    (tmp_path / "a.ts").write_text("")
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (200, {"path": "a.ts", "size": 1}),
            "POST /execute": (200, f"event: result\ndata: {json.dumps({**RESULT, 'processLimitExceeded': True})}\n\n"),
            f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST}),
        }
    )
    done = server.runs("run", "--no-stdin", *arguments, str(tmp_path / "a.ts"))
    assert done.exit_code == 3
    if arguments:
        assert json.loads(done.stdout)["processLimitExceeded"] is True
    else:
        assert done.stderr == "buntime: The run reached the process limit. Everything that it started was killed.\n"


def test_a_session_is_deleted_if_the_upload_of_its_file_fails(tmp_path: Any) -> None:
    (tmp_path / "a.ts").write_text("")
    deleted = (200, {"deleted": True, "sessionId": FIRST})
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (503, FULL),
            f"DELETE /sessions/{FIRST}": deleted,
        }
    )
    done = server.runs("run", str(tmp_path / "a.ts"))
    assert (done.exit_code, done.stderr) == (1, "buntime: No room. Try again in 7 s.\n")
    assert server.asked[-1] == f"DELETE /sessions/{FIRST}"


def test_control_characters_in_names_are_replaced() -> None:
    done = Server({"GET /sessions": listed(session(FIRST, metadata={"name": "\x1b]0;x\x07"}))}).runs("ls")
    assert "\x1b" not in done.stdout
    assert f"{FIRST}  �]0;x�" in done.stdout


def test_usage_is_summed_by_state() -> None:
    asleep = session(SECOND, state="deep-sleep", activeProcesses=0)
    done = Server({"GET /sessions": listed(session(FIRST), asleep)}).runs("usage", "--json")
    told = json.loads(done.stdout)
    one = {"sessions": 1, "memory": 1024, "cpu": 0.25, "disk": 1024, "files": 2}
    assert told["sessions"]["active"] == {**one, "processes": 1}
    assert told["sessions"]["deep-sleep"] == {**one, "processes": 0}
    assert told["sessions"]["all"] == {
        "sessions": 2,
        "memory": 2048,
        "cpu": 0.5,
        "disk": 2048,
        "processes": 1,
        "files": 4,
    }
    assert told["rateLimit"] is None
