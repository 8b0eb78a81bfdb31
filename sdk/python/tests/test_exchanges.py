"""Recorded exchanges: both halves send exactly what was recorded, and return every value of the response."""

import base64
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import exchange_calls
import pytest
from buntime_sdk import (
    AsyncContext,
    AsyncProcess,
    AsyncSession,
    BuntimeError,
    Context,
    Displayed,
    FileChange,
    LogEntry,
    Process,
    ProcessExit,
    ProcessStarted,
    Result,
    Session,
    Stderr,
    Stdout,
    Watching,
)
from exchange_calls import CONTEXT, PROCESS, SESSION, Exchange
from stand_in import Answer, Asked, Player, StandIn

EXCHANGES = Path(__file__).parents[2] / "exchanges"
RECORDED = {file.stem: json.loads(file.read_text()) for file in EXCHANGES.glob("*.json")}
EVENTS = {
    Stdout: "stdout",
    Stderr: "stderr",
    ProcessStarted: "process",
    Displayed: "displayed",
    Result: "result",
    ProcessExit: "exit",
    Watching: "ready",
    FileChange: "change",
}


def table(here: Path) -> Mapping[str, Exchange]:
    calls = exchange_calls
    parts = (
        calls.SESSIONS,
        calls.SNAPSHOTS,
        calls.RUNS,
        calls.CONTEXTS,
        calls.SERVICES,
        calls.PROCESSES,
        calls.files(here),
    )
    return {name: one for part in parts for name, one in part.items()}


def test_every_exchange_has_a_call_and_every_call_an_exchange(tmp_path: Path) -> None:
    assert table(tmp_path).keys() == RECORDED.keys()
    assert RECORDED


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_call_sends_and_returns_what_was_recorded(player: Player, name: str, tmp_path: Path) -> None:
    request, response = RECORDED[name]["request"], RECORDED[name]["response"]
    if "bodyBase64" in request:
        unpack(request["bodyBase64"], tmp_path / "site")
    exchange = table(tmp_path)[name]
    subjects: list[Any] = []

    def call(on: Any) -> Any:
        subjects.append(on)
        return exchange.call(on)

    answer = Answer(response["status"], _content(response), response["headers"])
    before, prepare = _before(exchange)
    raised, given = None, None
    with StandIn([*before, answer]) as server:
        try:
            given = player.play(server.url, *prepare, call, max_retries=0)
        except BuntimeError as failure:
            raised = failure
    (asked,) = server.asked[len(before) :]
    assert_asked(asked, request)
    if response["status"] >= 400 or "event: error" in response.get("text", ""):
        assert raised is not None
        assert_raised(raised, response)
    else:
        assert raised is None
        assert_given(exchange.told(given, subjects[0]), response)


def _before(exchange: Exchange) -> tuple[Sequence[Answer], Sequence[Any]]:
    """Returns the answers and calls that come first, to get the object that the call is made on."""
    match exchange.on:
        case "client":
            return (), ()
        case "session":
            return (), (lambda client: client.sessions.open(SESSION),)
        case "context":
            return (), (lambda client: client.sessions.open(SESSION).contexts.open(CONTEXT),)
        case "process":
            there = Answer(body=RECORDED["get-process"]["response"]["body"])
            return (there,), (lambda client: client.sessions.open(SESSION).processes.get(PROCESS),)


def _content(response: Mapping[str, Any]) -> object:
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return response["text"] if "text" in response else response["body"]


def assert_asked(asked: Asked, request: Mapping[str, Any]) -> None:
    assert (asked.method, asked.path, dict(asked.query)) == (request["method"], request["path"], request["query"])
    assert ("idempotency-key" in asked.headers) == ("idempotency-key" in request["headers"])
    assert asked.headers.get("range") == request["headers"].get("range")
    assert asked.headers["authorization"].startswith("Bearer btk_")
    if "bodyBase64" in request:
        assert members(asked.body) == members(base64.b64decode(request["bodyBase64"]))
    elif "bodyText" in request:
        assert asked.body.decode() == request["bodyText"]
    elif request["body"] is None:
        assert asked.body == b""
    else:
        assert asked.headers["content-type"] == "application/json"
        assert asked.json == request["body"]


def assert_raised(raised: BuntimeError, response: Mapping[str, Any]) -> None:
    if "text" in response:
        name, _, told = events_of(response["text"])[-1]
        assert (name, raised.status) == ("error", None)
    else:
        told = response["body"]["error"]
        assert raised.status == response["status"]
        assert raised.request_id == response["headers"]["x-request-id"]
        after = response["headers"].get("retry-after")
        assert raised.retry_after == (None if after is None else float(after))
    assert type(raised) is BuntimeError.codes[told["code"]]
    shown = {"code": raised.code, "message": raised.message, "retryable": raised.retryable, "details": raised.details}
    assert shown == told


def assert_given(given: Any, response: Mapping[str, Any]) -> None:
    if "base64" in response:
        assert given == members(base64.b64decode(response["base64"]))
    elif response["headers"]["content-type"] == "text/event-stream":
        expected = events_of(response["text"])
        assert len(given) == len(expected)
        for event, (name, number, told) in zip(given, expected, strict=True):
            assert (event.stream if isinstance(event, LogEntry) else EVENTS[type(event)]) == name
            assert not isinstance(event, LogEntry) or event.cursor == number
            assert wire(event, told) == told
    elif "text" in response:
        assert given == response["text"]
    else:
        assert wire(given, response["body"]) == response["body"]


def wire(value: Any, expected: Any) -> Any:
    """Maps what the SDK returned to the server's names, limited to the expected fields."""
    match expected:
        case dict():
            return {name: wire(found(value, name), told) for name, told in expected.items()}
        case list():
            assert len(value) == len(expected)
            return [wire(one, told) for one, told in zip(value, expected, strict=True)]
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat() if isinstance(value, date) else value


def found(value: Any, name: str) -> Any:
    """Returns the field of the SDK's result that has this JSON name."""
    match value:
        case Mapping():
            return value[name]
        case list():  # what was returned and what it was called on
            return next(found(one, name) for one in value if _has(one, name))
        case Session() | AsyncSession() if name in ("sessionId", "previewUrl"):
            return value.id if name == "sessionId" else value.preview_url()
        case Session() | AsyncSession() if name == "services":
            return value.declared_services
        case Process() | AsyncProcess() if name == "processId":
            return value.id
        case Context() | AsyncContext() if name == "contextId":
            return value.id
        case Result():
            return found(value.result, name)
        case Displayed():
            return found(value.value, name)
    is_path = name == "from" and hasattr(value, "from_path")
    return getattr(value, "from_path" if is_path else snake(name))


def _has(value: Any, name: str) -> bool:
    return (name in ("sessionId", "previewUrl") and hasattr(value, "preview_url")) or hasattr(value, snake(name))


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def events_of(text: str) -> list[tuple[str, int | None, Any]]:
    """Returns the name, id and data of each event."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if block]
    return [
        (block["event"], int(block["id"]) if "id" in block else None, json.loads(block["data"])) for block in blocks
    ]


def members(content: bytes) -> dict[str, bytes | None]:
    """Returns a tar.gz's contents: path → content; None is a directory."""
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        return {
            entry.name.removeprefix("./"): None if (file := packed.extractfile(entry)) is None else file.read()
            for entry in packed.getmembers()
            if entry.name != "."
        }


def unpack(archive: str, directory: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as packed:
        packed.extractall(directory, filter="data")
