"""The fake answers in the server's own shapes: the recorded exchanges say which."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from buntime_sdk._fake.scripts import FakeResult, FakeRun
from buntime_sdk._fake.server import FakeServer
from buntime_sdk._fake.transports import FakeTransport
from buntime_sdk.events import EventParser
from buntime_sdk.shapes import Forms, Thrown
from buntime_sdk.testing import _now

EXCHANGES = Path(__file__).parents[2] / "exchanges"
RECORDED_ID = re.compile(r"(ses|proc|ctx)_abc123def456ghi789")
KINDS = {"ses": "sessionId", "proc": "processId", "ctx": "contextId"}
# What a user names, what may be null in one answer and not in the next, and what depends on the program.
OF_THE_USER = frozenset({"metadata", "details", "ports", "filesWritten", "envNames", "allow", "deny", "json", "rows"})
NULLABLE = frozenset({"exitCode", "reason", "endedAt", "name", "onWake"})

CONVERSATION = """
    create-session-all-fields get-session-all-fields list-sessions patch-session create-preview-token
    create-preview-token-for-all-ports revoke-preview-tokens execute-code execute-command execute-timed-out stream-code
    stream-command write-file append-to-file write-file-base64 read-file read-file-base64 stat-file list-files
    list-files-recursive make-directory search-names make-directory-again directory-not-empty delete-directory
    write-content read-content file-not-found range-not-satisfiable write-archive read-archive
    create-context evaluate-nothing evaluate-thrown stream-evaluation list-contexts delete-context context-not-found
    process-not-found stream-detached start-process get-process list-processes process-input process-input-base64
    close-process-input process-logs signal-process get-process-killed invalid-state
    create-context sleep-session wake-session sleep-session-deeply wake-session-from-deep-sleep context-lost
    list-contexts-with-a-lost-one invalid-request delete-session session-not-found session-not-found-by-a-run
"""


class Conversation:
    """`ids`: what was found in answers, in place of the recorded ones."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        server = FakeServer(_now)
        server.scripts.add(lambda run: True, _scripted)
        self._http = httpx2.Client(transport=FakeTransport(server))

    def say(self, name: str, **changes: object) -> httpx2.Response:
        recorded = json.loads((EXCHANGES / f"{name}.json").read_text())["request"]
        request = json.loads(RECORDED_ID.sub(self._known, json.dumps(recorded))) | changes
        content = base64.b64decode(request["bodyBase64"]) if "bodyBase64" in request else None
        body = request.get("body")
        request["headers"].pop("idempotency-key", None)  # all recorded calls have the same
        content = request["bodyText"].encode() if "bodyText" in request else content
        answer = self._http.request(
            request["method"],
            f"http://fake.invalid{request['path']}",
            params=request["query"],
            headers=request["headers"] | ({"Content-Type": "application/json"} if body is not None else {}),
            content=json.dumps(body).encode() if body is not None else content,
        )
        if answer.headers["content-type"] == "application/json":
            told = answer.json()
            self.ids |= {kind: told[field] for kind, field in KINDS.items() if field in told}
        return answer

    def _known(self, recorded: re.Match[str]) -> str:
        return self.ids.get(recorded[1], f"{recorded[1]}_missing")


def _scripted(run: FakeRun) -> FakeResult:
    thrown = Thrown("TypeError", "null is not an object", "TypeError: null") if "null.field" in run.program else None
    shown = (Forms("x", markdown="*two*"),) if "display" in run.program else ()
    value = Forms("2", json=2) if shown else None
    is_server = run.kind == "process" and "read line" in run.program
    return FakeResult("1\n", "2\n", error=thrown, displayed=shown, result=value, running=is_server)


def shape_of(value: Any, name: str = "") -> Any:
    """Names and kinds of values; of a list, that of its first entry."""
    if name in OF_THE_USER:
        return "of the user"
    if value is None or name in NULLABLE:
        return "may be null"
    if isinstance(value, Mapping):
        return {key: shape_of(inner, key) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape_of(entry) for entry in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def events_in(text: str) -> Any:
    """The names of the events, and the fields of each."""
    return {event.name: shape_of(json.loads(event.data)) for event in EventParser().feed(text.encode())}


def expected(name: str) -> dict[str, Any]:
    response: dict[str, Any] = json.loads((EXCHANGES / f"{name}.json").read_text())["response"]
    return response


def check(answer: httpx2.Response, name: str) -> None:
    recorded = expected(name)
    assert (name, answer.status_code) == (name, recorded["status"]), answer.text
    assert (name, answer.headers["content-type"]) == (name, recorded["headers"]["content-type"])
    if "body" in recorded:
        assert (name, shape_of(answer.json())) == (name, shape_of(recorded["body"]))
        if answer.is_error:
            told, wanted = answer.json()["error"], recorded["body"]["error"]
            assert (name, told["code"], told["retryable"]) == (name, wanted["code"], wanted["retryable"])
    elif recorded["headers"]["content-type"] == "text/event-stream":
        told, wanted = events_in(answer.text), events_in(recorded["text"])
        assert {event: told[event] for event in told if event in wanted} == wanted, name


def test_a_conversation_with_the_fake_has_the_fields_that_one_with_a_server_has() -> None:
    conversation = Conversation()
    for name in CONVERSATION.split():
        check(conversation.say(name), name)


@pytest.mark.parametrize("name", ["sessions", "processes", "files"])
def test_pages_are_cut_as_the_server_cuts_them(name: str) -> None:
    conversation = Conversation()
    conversation.say("create-session")
    conversation.say("create-session")
    for path in ("src/a.ts", "src/b.ts"):
        conversation.say("start-process-plainly")
        body = {"sessionId": conversation.ids["ses"], "path": path, "content": ""}
        conversation.say("write-file", body=body)
    first, second = (conversation.say(f"list-{name}-{which}-page").json() for which in ("first", "second"))
    assert (len(first[name]), first["total"]) == (1, 2)
    assert first[name] != second[name]
