"""A plain HTTP client of the API. It opens one connection per call."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

PATIENCE = 120.0  # seconds; a guard against a hang, not a measure of speed


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The `error` object. Asserts that it has the form that every refusal has."""
        error = self.json()["error"]
        assert set(error) == {"code", "retryable", "message", "details"}, error
        assert isinstance(error["retryable"], bool)
        assert isinstance(error["message"], str)
        assert error["message"]
        return dict(error)

    def refused(self, status: int, code: str, field: str | None = None) -> dict[str, Any]:
        """Asserts this status, code and named field. Returns the error's `details`."""
        assert (self.status, self.error["code"]) == (status, code), self.shown()
        details = dict(self.error["details"])
        if field is not None:
            assert details.get("field") == field, self.shown()
        return details

    def done(self) -> Any:
        """Asserts success. Returns the decoded body."""
        assert self.status == 200, self.shown()
        return self.json()

    def shown(self) -> str:
        return f"{self.status} {self.body[:2000]!r}"


class Client:
    """Calls with one key (or none)."""

    def __init__(self, port: int, key: str | None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port
        self.key = key

    def call(
        self,
        method: str,
        path: str,
        *,
        json_body: object = None,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Reply:
        """Sends `json_body` as JSON, or `body` unchanged and without a Content-Type of its own."""
        sent = dict(headers or {})
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        if query:
            path += "?" + urlencode({name: _text(value) for name, value in query.items()})
        connection = HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def status(self, path: str) -> int | None:
        """Of a GET. None: the host is fenced, and has reset or refused the connection."""
        try:
            return self.call("GET", path, timeout=60).status
        except ConnectionError:
            return None

    def create(self, *, idempotency_key: str | None = None, **fields: Any) -> Reply:
        return self.call(
            "POST",
            "/sessions/create",
            json_body=fields,
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )

    def open(self, **fields: Any) -> "Session":
        """Creates a session. It has a whole core by default, since a quarter makes tests slow."""
        fields.setdefault("resourceLimits", {"cpu": 1})
        return Session(self, str(self.create(**fields).done()["sessionId"]))

    def execute(self, session_id: str, *, idempotency_key: str | None = None, **fields: Any) -> Reply:
        return self.call(
            "POST",
            "/execute",
            json_body={"sessionId": session_id, **fields},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )


@dataclass(frozen=True, slots=True)
class Session:
    """One session as its owner sees it."""

    client: Client
    id: str

    def execute(self, **fields: Any) -> Reply:
        return self.client.execute(self.id, **fields)

    def code(self, code: str, **fields: Any) -> dict[str, Any]:
        """Runs code. Returns the result, whatever its exit code. Asserts status 200."""
        return dict(self.execute(code=code, **fields).done())

    def command(self, command: str, **fields: Any) -> dict[str, Any]:
        return dict(self.execute(command=command, **fields).done())

    def output(self, command: str, **fields: Any) -> str:
        """Runs a command that must succeed. Returns its stdout."""
        result = self.command(command, **fields)
        assert result["exitCode"] == 0, result
        return str(result["stdout"])

    def sleeper(self, seconds: int = 100_000) -> str:
        """Starts a process that sleeps in the background. Returns its pid inside the session.

        The shell ends before its child has become `sleep`, so this waits for it.
        """
        return self.output(f"sleep {seconds} & until pgrep -fx 'sleep {seconds}'; do sleep 0.01; done").strip()

    def look(self) -> Reply:
        return self.client.call("GET", f"/sessions/{self.id}")

    def patch(self, **fields: Any) -> Reply:
        return self.client.call("PATCH", f"/sessions/{self.id}", json_body=fields)

    def delete(self) -> Reply:
        return self.client.call("DELETE", f"/sessions/{self.id}")

    def write(self, path: str, content: str, **fields: Any) -> Reply:
        return self.client.call(
            "POST", "/files/write", json_body={"sessionId": self.id, "path": path, "content": content, **fields}
        )

    def read(self, path: str) -> Reply:
        return self.client.call("GET", "/files/read", query={"sessionId": self.id, "path": path})

    def text(self, path: str) -> str:
        return str(self.read(path).done()["content"])

    def list(self, path: str | None = None, **fields: Any) -> Reply:
        query = {"sessionId": self.id, **({} if path is None else {"path": path}), **fields}
        return self.client.call("GET", "/files/list", query=query)

    def delete_file(self, path: str, **fields: Any) -> Reply:
        return self.client.call("DELETE", "/files/delete", query={"sessionId": self.id, "path": path, **fields})


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
