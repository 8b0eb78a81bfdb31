"""One request of the scenario, and the values that later requests need from its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Step:
    """One request. In `path`, `query` and `body`, `$name` stands for the value that an earlier step kept as `name`."""

    name: str  # of the recorded file; empty if the step only prepares later ones
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None  # JSON; str and bytes are sent unchanged
    headers: Mapping[str, str] = field(default_factory=dict)
    account: str = "paid"  # whose key is sent: see `exchanges.ACCOUNTS`
    status: int = 200  # the expected status; any other fails the recording
    keep: Mapping[str, str] = field(default_factory=dict)  # name → field of the answer, such as `a` or `list.0.a`
    loses: str = ""  # id of the session whose volume the host loses before the request
    again: bool = False  # repeat until the answer has this status
    on_ready: "Step | None" = None  # runs after the first event of a stream; the second event ends the stream


def get(name: str, path: str, /, **fields: Any) -> Step:
    """Makes a GET step. Keyword arguments that are not fields of Step become the query."""
    return _with_query(name, "GET", path, fields)


def delete(name: str, path: str, /, **fields: Any) -> Step:
    return _with_query(name, "DELETE", path, fields)


def post(name: str, path: str, body: Any = None, /, **fields: Any) -> Step:
    return Step(name, "POST", path, body=body, **fields)


def keyed(name: str, path: str, body: Any, /, key: str = "", **fields: Any) -> Step:
    """Makes a POST step with an Idempotency-Key: `key`, or one of its own."""
    return Step(name, "POST", path, body=body, headers={KEY: key or f"key-{name}-{path}"}, **fields)


def execute(name: str, /, status: int = 200, account: str = "paid", session: str = "$session", **body: Any) -> Step:
    return post(name, "/execute", {"sessionId": session, **body}, status=status, account=account)


def execute_until(command: str, on_ready: Step) -> Step:
    """Makes a step that runs a command, and runs `on_ready` after the command's first output. Records nothing."""
    body = {"sessionId": "$session", "command": command, "stream": True}
    return post("", "/execute", body, on_ready=on_ready)


def _with_query(name: str, method: str, path: str, fields: dict[str, Any]) -> Step:
    own = {
        key: fields.pop(key)
        for key in ("account", "status", "keep", "again", "on_ready", "headers", "loses")
        if key in fields
    }
    return Step(name, method, path, query=fields.pop("query", {}) | fields, **own)
