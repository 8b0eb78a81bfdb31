"""The fake's responses have the server's shapes, as the recorded exchanges show them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from buntime_sdk import BuntimeError
from buntime_sdk._fake.scripts import FakeResult, FakeRun
from buntime_sdk._fake.server import FakeServer
from buntime_sdk._fake.transports import FakeTransport
from buntime_sdk.events import EventParser
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import Evaluation, ExecutionResult, Forms
from buntime_sdk.testing import FakeBuntime, _now

EXCHANGES = Path(__file__).parents[2] / "exchanges"
RECORDED_ID = re.compile(r"(ses|proc|ctx|snp|key|whk)_abc123def456(?:ghi789)?")
KINDS = {
    "ses": "sessionId",
    "proc": "processId",
    "ctx": "contextId",
    "snp": "snapshotId",
    "key": "keyId",
    "whk": "webhookId",
}
# Names that users choose, values that may be null, and what depends on the program.
OF_THE_USER = frozenset({"metadata", "details", "ports", "filesWritten", "envNames", "allow", "deny", "json", "rows"})
NULLABLE = frozenset({"exitCode", "reason", "endedAt", "name", "onWake", "expiresAt", "checkpointedAt"})
NULLABLE |= {"disabledReason", "failingSince", "lastAttemptAt", "nextAttemptAt", "status", "failure"}

CONVERSATION = """
    create-session get-session create-session-all-fields get-session-all-fields list-sessions list-sessions-filtered
    list-sessions-by-name get-session-by-name get-or-create-session name-taken
    get-session-metrics list-latest-metrics
    patch-session patch-session-to-defaults get-account create-key-all-fields list-keys delete-key key-not-found
    create-key create-key-of-the-operator create-webhook-all-fields list-webhooks get-webhook
    rotate-webhook-secret test-webhook list-deliveries delivery-not-found patch-webhook webhook-is-off list-events
    list-events-from-cursor delete-webhook webhook-not-found create-webhook image-not-found list-images
    delete-image-of-the-operator create-preview-token create-preview-token-for-all-ports
    revoke-preview-token revoke-preview-tokens execute-code execute-command execute-all-fields execute-timed-out
    execute-process-limit-exceeded
    execute-with-key stream-code stream-command write-file append-to-file write-file-base64 read-file
    read-file-base64 stat-file list-files list-files-recursive make-directory search-names search-lines
    make-directory-again directory-not-empty move-file move-file-over-another delete-directory write-content
    read-content read-part-of-content range-not-satisfiable delete-file file-not-found write-archive read-archive
    create-context create-context-all-fields evaluate evaluate-displayed evaluate-nothing evaluate-thrown
    evaluate-exited evaluate-timed-out stream-evaluation list-contexts delete-context context-not-found
    process-not-found stream-detached start-process-plainly start-process-all-fields start-process get-process
    list-processes process-input process-input-base64 close-process-input process-logs process-logs-from-cursor
    pause-process signal-process get-process-killed get-process-exited follow-process-logs invalid-state
    signal-process-ended signal-process-unknown create-context
    sleep-session wake-session sleep-session-deeply wake-session-from-deep-sleep context-lost
    list-contexts-with-a-lost-one create-snapshot create-snapshot-all-fields get-snapshot list-snapshots
    list-snapshots-filtered fork-session fork-session-all-fields fork-session-partly restore-session create-image
    create-image-of-snapshot delete-image create-session-from-snapshot get-session-from-snapshot delete-snapshot
    snapshot-not-found recover-session-not-lost create-session-with-services list-services stop-service start-service
    restart-service service-not-found patch-services patch-services-to-default invalid-request delete-session
    session-not-found session-not-found-by-a-run
    create-session-without-end get-session-without-end
"""


USAGE = """
    create-session execute-code sleep-session-deeply list-usage-windows list-usage-windows-from-cursor get-usage
    get-usage-of-session get-usage-by-session list-hosts
"""
LOST = ("recover-session", "recover-session-replayed")  # a fake loses no files
REPLAYED = ("create-session-replayed", "execute-replayed", "restore-session-replayed")
RUN_AGAIN = ("execute-with-key", "execute-replayed")
RESPONSES: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text())["response"] for file in EXCHANGES.glob("*.json")
}
REFUSED = sorted(name for name, response in RESPONSES.items() if response["status"] >= 400)


class Conversation:
    """`ids`: recorded ids and those that responses have instead."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self._said = ""
        server = FakeServer(_now)
        server.scripts.add(lambda run: True, self._run)
        server.images.add("small", 7)
        self._http = httpx2.Client(transport=FakeTransport(server))

    def say(self, name: str, *, with_key: bool = False, **changes: object) -> httpx2.Response:
        answer = self._http.send(self._request(name, changes, with_key=with_key))
        if answer.headers["content-type"] == "application/json":
            told = answer.json()
            self.ids |= {kind: told[field] for kind, field in KINDS.items() if told.get(field) is not None}
        return answer

    @contextmanager
    def hear(self, name: str) -> Iterator[Iterator[str]]:
        """Yields the parts of a response that goes on."""
        answer = self._http.send(self._request(name, {}), stream=True)
        yield answer.iter_text()
        answer.close()

    def _request(self, name: str, changes: dict[str, object], *, with_key: bool = False) -> httpx2.Request:
        self._said = name
        recorded = json.loads((EXCHANGES / f"{name}.json").read_text())["request"]
        request = json.loads(RECORDED_ID.sub(self._known, json.dumps(recorded))) | changes
        content = base64.b64decode(request["bodyBase64"]) if "bodyBase64" in request else None
        content = request["bodyText"].encode() if "bodyText" in request else content
        if not with_key:
            request["headers"].pop("idempotency-key", None)  # all recorded calls have the same key
        if request.get("body") is not None:
            request["headers"]["content-type"] = "application/json"
            content = json.dumps(request["body"]).encode()
        url = f"http://fake.invalid{request['path']}"
        return self._http.build_request(
            request["method"], url, params=request["query"], headers=request["headers"], content=content
        )

    def _known(self, recorded: re.Match[str]) -> str:
        return self.ids.get(recorded[1], f"{recorded[1]}_missing")

    def _run(self, run: FakeRun) -> FakeResult | ExecutionResult:
        """Returns what the recorded run returned."""
        told = RESPONSES[self._said].get("body", {})
        if "executionTime" in told:
            return from_wire(Evaluation if run.kind == "context" else ExecutionResult, told)
        shown = (Forms("x", markdown="*two*"),) if "display" in run.program else ()
        is_server = run.kind == "process" and self._said.startswith("start-")
        value = Forms("2", json=2) if shown else None
        return FakeResult("ready\ngot one\n", "problem\n", displayed=shown, result=value, running=is_server)


def shape_of(value: Any, name: str = "") -> Any:
    """Returns the names and types of values; for a list, those of its first entry."""
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
    """Returns the names of the events and the fields of each."""
    return {event.name: shape_of(json.loads(event.data)) for event in EventParser().feed(text.encode())}


def check(answer: httpx2.Response, name: str) -> None:
    recorded = RESPONSES[name]
    assert (name, answer.status_code) == (name, recorded["status"]), answer.text
    assert (name, answer.headers["content-type"]) == (name, recorded["headers"]["content-type"])
    if "body" in recorded:
        assert (name, shape_of(answer.json())) == (name, shape_of(recorded["body"]))
        if "executionTime" in recorded["body"]:  # its script sets just this
            assert (name, answer.json()) == (name, recorded["body"])
        if answer.is_error:
            told, wanted = answer.json()["error"], recorded["body"]["error"]
            assert (name, told["code"], told["retryable"]) == (name, wanted["code"], wanted["retryable"])
    elif recorded["headers"]["content-type"] == "text/event-stream":
        told, wanted = events_in(answer.text), events_in(recorded["text"])
        assert {event: told[event] for event in told if event in wanted} == wanted, name


def test_the_fake_returns_the_same_fields_as_a_server() -> None:
    conversation = Conversation()
    for name in CONVERSATION.split():
        check(conversation.say(name), name)


def test_the_fakes_usage_has_the_servers_fields() -> None:
    conversation = Conversation()
    for name in USAGE.split():
        check(conversation.say(name), name)


@pytest.mark.parametrize("name", ["sessions", "processes", "files", "snapshots"])
def test_pages_are_split_as_by_the_server(name: str) -> None:
    conversation = Conversation()
    conversation.say("create-session")
    conversation.say("create-session")
    for path in ("src/a.ts", "src/b.ts"):
        conversation.say("start-process-plainly")
        conversation.say("create-snapshot")
        body = {"sessionId": conversation.ids["ses"], "path": path, "content": ""}
        conversation.say("write-file", body=body)
    first, second = (conversation.say(f"list-{name}-{which}-page").json() for which in ("first", "second"))
    assert (len(first[name]), first["total"]) == (1, 2)
    assert first[name] != second[name]


@pytest.mark.parametrize(("name", "again"), [("create-session-all-fields", "create-session-replayed"), RUN_AGAIN])
def test_a_repeated_key_returns_the_same_response(name: str, again: str) -> None:
    conversation = Conversation()
    conversation.say("create-session")
    first = conversation.say(name, with_key=True)
    second = conversation.say(again, with_key=True)
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert second.headers["idempotent-replayed"] == RESPONSES[again]["headers"]["idempotent-replayed"]
    check(conversation.say("idempotency-key-reused", with_key=True), "idempotency-key-reused")


@pytest.mark.parametrize("name", REFUSED)
def test_a_scripted_code_is_refused_as_by_the_server(name: str) -> None:
    recorded = RESPONSES[name]
    wanted = recorded["body"]["error"]
    fake = FakeBuntime(max_retries=0).fail("GET", "/sessions", wanted["code"])
    with pytest.raises(BuntimeError) as told:
        list(fake.sessions.list())
    assert type(told.value) is BuntimeError.codes[wanted["code"]]
    assert (told.value.status, told.value.retryable) == (recorded["status"], wanted["retryable"])


def test_file_changes_have_the_servers_fields() -> None:
    wanted = events_in(RESPONSES["watch-files"]["text"])
    conversation = Conversation()
    conversation.say("create-session")
    conversation.say("make-directory")
    with conversation.hear("watch-files") as parts:
        told = next(parts)
        body = {"sessionId": conversation.ids["ses"], "path": "docs/new"}
        conversation.say("make-directory", body=body)
        told += next(parts)
    assert events_in(told) == wanted


def test_every_exchange_is_compared_except_those_listed() -> None:
    """The others are pages, which have their own test above, and an error in a stream."""
    compared = {*CONVERSATION.split(), *USAGE.split(), *REFUSED, *REPLAYED, *LOST, "watch-files"}
    rest = RESPONSES.keys() - compared
    assert {name for name in rest if not name.endswith("-page")} == {"stream-memory-limit-exceeded", "redeliver"}
