"""One request of the scenario, and what later requests need from its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Step:
    """`$name` in `path`, `query` and `body` stands for what a step before has kept under that name."""

    name: str  # of the file; empty: it only prepares the next ones
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None  # JSON; str and bytes are sent as they are
    headers: Mapping[str, str] = field(default_factory=dict)
    account: str = "paid"  # which key is sent: see `exchanges.ACCOUNTS`
    status: int = 200  # any other is no exchange to record
    keep: Mapping[str, str] = field(default_factory=dict)  # name → field of the answer
    again: bool = False  # until it has that status
    on_ready: "Step | None" = None  # made at the first event of a stream, which is left at its second


def get(name: str, path: str, /, **fields: Any) -> Step:
    """Names of query parameters that are no fields of a step are the query."""
    return _with_query(name, "GET", path, fields)


def delete(name: str, path: str, /, **fields: Any) -> Step:
    return _with_query(name, "DELETE", path, fields)


def post(name: str, path: str, body: Any = None, /, **fields: Any) -> Step:
    return Step(name, "POST", path, body=body, **fields)


def keyed(name: str, path: str, body: Any, /, key: str = "", **fields: Any) -> Step:
    """With an Idempotency-Key, of its own unless one is given."""
    return Step(name, "POST", path, body=body, headers={KEY: key or f"key-{name}-{path}"}, **fields)


def execute(name: str, /, status: int = 200, account: str = "paid", session: str = "$session", **body: Any) -> Step:
    return post(name, "/execute", {"sessionId": session, **body}, status=status, account=account)


def execute_until(command: str, on_ready: Step) -> Step:
    """A command of which nothing is kept, and the step that is made once it has begun to write."""
    body = {"sessionId": "$session", "command": command, "stream": True}
    return post("", "/execute", body, on_ready=on_ready)


def _with_query(name: str, method: str, path: str, fields: dict[str, Any]) -> Step:
    own = {
        key: fields.pop(key) for key in ("account", "status", "keep", "again", "on_ready", "headers") if key in fields
    }
    return Step(name, method, path, query=fields.pop("query", {}) | fields, **own)
