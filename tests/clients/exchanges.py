"""Runs the scenario against a real server: `python -m tests.clients.exchanges record` writes `sdk/exchanges`."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from tests.acceptance import traces
from tests.acceptance.client import PATIENCE
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server
from tests.clients.constants import KEY_OF_EXAMPLE, REQUEST_ID, REQUEST_ID_FORM, RETRY_AFTER, Constants, archive
from tests.clients.scenario import SCENARIO
from tests.clients.step import Step

DIRECTORY = Path(__file__).parents[2] / "sdk" / "exchanges"
ACCOUNTS: Mapping[str, tuple[str, ...]] = {  # plan, and limits that differ from the plan's
    "paid": ("paid",),
    "free": ("free",),
    "keys": ("paid",),
    "used": ("paid",),
    "single": ("paid", "sessions=1", "contexts_per_session=1", "longest_ttl=never"),
    "few": ("paid", "sessions=2"),
    "slow": ("paid", "requests_per_minute=1"),
    "operator": ("paid",),
}
SCOPES = {"operator": "operator"}  # of keys that have another than the usual ones
SENT = ("idempotency-key", "range")
ANSWERED = ("content-type", "content-range", "idempotent-replayed", "retry-after", "session-existing")
AGAIN_SECONDS = 5.0

type Exchange = dict[str, Any]


class Recorder:
    """Runs the scenario once, with new accounts."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = {name: _key(server, SCOPES.get(name), *account) for name, account in ACCOUNTS.items()} | {
            "nobody": "btk_nobodys"
        }
        self._kept: dict[str, str] = {}
        self._exchanges: dict[str, Exchange] = {}

    def exchanges(self) -> Mapping[str, Exchange]:
        """Runs the scenario. Returns the exchanges of steps that have a name, by name."""
        with _image(self._server):
            for step in SCENARIO:
                self._make(step)
        return self._exchanges

    def _make(self, step: Step) -> None:
        deadline = time.monotonic() + AGAIN_SECONDS
        if step.loses:
            traces.lose_volume(self._server.config, self._filled(step.loses))
        while True:
            path, query, body = self._filled(step.path), self._filled(step.query), self._filled(step.body)
            connection = self._sent(step, path, query, body)
            with connection.getresponse() as answer:
                content = self._read(answer, step)
            connection.close()
            if answer.status == step.status:
                break
            assert step.again, (step, answer.status, content[:2000])
            assert time.monotonic() < deadline, (step, answer.status)
        for name, field in step.keep.items():
            self._kept[name] = _found(json.loads(content), field)
        if step.name:
            constants = Constants()
            self._exchanges[step.name] = {
                "name": step.name,
                "request": _request(constants, step, path, query, body),
                "response": _response(constants, answer, content),
            }

    def _sent(self, step: Step, path: str, query: Mapping[str, str], body: Any) -> HTTPConnection:
        headers = {"Authorization": f"Bearer {self._keys[step.account]}", **step.headers}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers["Content-Type"] = "application/octet-stream"
        connection = HTTPConnection("127.0.0.1", self._server.config.port, timeout=PATIENCE)
        connection.request(step.method, path + ("?" + urlencode(query) if query else ""), body=body, headers=headers)
        return connection

    def _read(self, answer: HTTPResponse, step: Step) -> bytes:
        if step.on_ready is None:
            return answer.read()
        first = _event(answer)
        self._make(step.on_ready)
        return first + _event(answer)

    def _filled(self, value: Any) -> Any:
        match value:
            case str():
                return Template(value).safe_substitute(self._kept)
            case dict():
                return {name: self._filled(item) for name, item in value.items()}
            case list():
                return [self._filled(item) for item in value]
        return value


@contextmanager
def _image(server: Server) -> Iterator[None]:
    """The server has an image named `small` meanwhile."""
    with TemporaryDirectory() as directory:
        (Path(directory) / "content").write_text("content")
        server.cli("images", "add", "small", directory)
    yield
    server.cli("images", "remove", "small")


def _key(server: Server, scope: str | None, plan: str, *numbers: str) -> str:
    settings = [part for number in numbers for part in ("--set", number)]
    account = server.cli("accounts", "create", "--plan", plan, *settings)
    return server.cli("keys", "create", "--account", account, *(("--scope", scope) if scope else ()))


def _found(told: Any, field: str) -> str:
    """`field`: a name, or several and indexes of lists between dots."""
    for part in field.split("."):
        told = told[int(part) if part.isdecimal() else part]
    return str(told)


def _event(answer: HTTPResponse) -> bytes:
    """Returns the next event of a stream. Skips comments."""
    lines = [answer.readline()]
    while lines[-1] != b"\n" or lines[0].startswith(b":"):
        assert lines[-1], "the stream ended"
        lines = [*lines, answer.readline()] if lines[-1] != b"\n" else [answer.readline()]
    return b"".join(lines)


def _request(constants: Constants, step: Step, path: str, query: Mapping[str, str], body: Any) -> Exchange:
    headers = {name.lower(): value for name, value in step.headers.items() if name.lower() in SENT}
    if "idempotency-key" in headers:
        headers["idempotency-key"] = KEY_OF_EXAMPLE
    request = {"method": step.method, "path": constants.text(path), "query": constants.value(query), "headers": headers}
    if isinstance(body, bytes):
        return request | {"bodyBase64": archive(body)}
    if isinstance(body, str):
        return request | {"bodyText": body}
    return request | {"body": constants.value(body)}


def _response(constants: Constants, answer: HTTPResponse, content: bytes) -> Exchange:
    headers = {name: value for name in ANSWERED if (value := answer.getheader(name)) is not None}
    if "retry-after" in headers and headers["retry-after"].isdecimal():
        headers["retry-after"] = str(RETRY_AFTER)
    if answer.status >= 400 and REQUEST_ID_FORM.fullmatch(answer.getheader("x-request-id", "")):
        headers["x-request-id"] = REQUEST_ID
    response = {"status": answer.status, "headers": headers}
    match headers["content-type"].partition(";")[0]:
        case "application/json":
            return response | {"body": constants.value(json.loads(content))}
        case "text/event-stream":
            return response | {"text": constants.events(content.decode())}
        case "application/gzip":
            return response | {"base64": archive(content)}
    return response | {"text": content.decode()}


def shown(exchange: Exchange) -> str:
    return json.dumps(exchange, indent=2, ensure_ascii=False) + "\n"


def record() -> None:
    """Records all exchanges. Deletes files of steps that no longer exist."""
    with ExitStack() as stack:
        server = stack.enter_context(fresh_server(pool_size=2))
        server.start()
        made = {f"{name}.json": shown(exchange) for name, exchange in Recorder(server).exchanges().items()}
        server.stop()
    DIRECTORY.mkdir(exist_ok=True)
    for old in DIRECTORY.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    assert sys.argv[1:] == ["record"], "python -m tests.clients.exchanges record"
    record()
