"""What a key may do: for each operation of the description, the scope that it needs, and whose objects it finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from buntime.scope import ACCOUNT_SCOPES, Scope
from buntime.testing.processes import SERVER
from buntime.web.examples import (
    BODIES,
    CONTEXT,
    DELIVERY,
    IMAGE,
    KEY,
    PROCESS,
    QUERIES,
    SERVICE,
    SESSION,
    SNAPSHOT,
    WEBHOOK,
)
from tests.app.serving import Api
from tests.app.test_openapi import DOCUMENT

START = BODIES["startProcess"]
FILES = ("src/index.ts", "src/old/a", "data/photos.zip")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    described: Mapping[str, Any]

    @property
    def scope(self) -> Scope:
        return Scope(self.described["security"][0]["key"][0])

    @property
    def names_an_object(self) -> bool:
        needed = [one["name"] for one in self.described.get("parameters", ()) if one.get("required")]
        ids = ("sessionId", "snapshotId", "keyId", "webhookId", "name")
        return any(name in (*needed, *BODIES.get(self.name, ())) for name in ids)

    @property
    def is_endless(self) -> bool:
        return set(self.described["responses"]["200"]["content"]) == {"text/event-stream"}


OPERATIONS = [
    Operation(described["operationId"], method.upper(), path, described)
    for path, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
    if described.get("security") != []
]
# a terminal is a WebSocket; a new key or snapshot has a name that no other object has
NAMING = [one for one in OPERATIONS if one.names_an_object and one.name not in ("terminal", "createKey")]


def by_name(operation: Operation) -> str:
    return operation.name


async def send(api: Api, operation: Operation, key: str, found: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Calls it as its example does. `found`: id in the example → another one. Returns the status and the error."""

    def real(value: Any) -> Any:
        return (found or {}).get(value, value) if isinstance(value, str) else value

    known = {"sessionId": SESSION, "snapshotId": SNAPSHOT, "name": IMAGE, "keyId": KEY, "serviceName": SERVICE}
    known |= {"webhookId": WEBHOOK, "deliveryId": DELIVERY}
    path = operation.path.format_map({name: real(example) for name, example in known.items()})
    queries = QUERIES.get(operation.name, {}).items()
    query = {name: str(value).lower() if isinstance(value, bool) else str(real(value)) for name, value in queries}
    asked = f"?{urlencode(query)}" if query else ""
    body: object = {name: real(value) for name, value in BODIES.get(operation.name, {}).items()} or None
    if operation.name == "createKey":
        body = None  # for all that its maker may do: the example asks for more than one scope
    if "application/octet-stream" in operation.described.get("requestBody", {}).get("content", {}):
        body = b"content"
    answer = await api.call(operation.method, path + asked, body, key=key)
    return answer.status, answer.error if answer.status >= 400 else None


async def furnish(api: Api) -> dict[str, str]:
    """Makes one of each kind of object. Returns what is in examples with what is there instead, such as ids."""
    session = await api.session(services=[{"name": SERVICE, "command": "cat"}])
    own = {"sessionId": session}
    for path in FILES:
        await api.call("POST", "/files/write", {**own, "path": path, "content": "TODO"})
    await api.call("POST", "/images/create", {**own, "name": IMAGE})
    process = await api.call("POST", "/processes/start", {**own, "command": "cat"})
    context = await api.call("POST", "/contexts/create", own)
    snapshot = await api.call("POST", f"/sessions/{session}/snapshots", {})
    key = await api.call("POST", "/keys/create")
    webhook = await api.call("POST", "/webhooks/create", {"url": "https://example.com"})
    hook = webhook.json["webhookId"]
    await api.call("POST", f"/webhooks/{hook}/test")
    deliveries = await api.call("GET", f"/webhooks/{hook}/deliveries")
    return {
        WEBHOOK: hook,
        DELIVERY: deliveries.json["deliveries"][0]["deliveryId"],
        SESSION: session,
        PROCESS: process.json["processId"],
        CONTEXT: context.json["contextId"],
        SNAPSHOT: snapshot.json["snapshotId"],
        KEY: key.json["keyId"],
        START["command"]: f"{SERVER}{START['waitFor']['port']}",  # else the port is waited for in vain
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=by_name)
async def test_a_key_without_the_needed_scope_is_forbidden_though_it_has_all_others(
    api: Api, operation: Operation
) -> None:
    key = await api.key_with(*(set(Scope) - {operation.scope}))
    status, error = await send(api, operation, key)
    assert (status, error["code"], error["details"]) == (403, "forbidden", {"scope": operation.scope})
    assert str(operation.scope) in error["message"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=by_name)
async def test_the_needed_scope_is_enough(api: Api, operation: Operation) -> None:
    status, error = await send(api, operation, await api.key_with(operation.scope))
    assert status not in (401, 403), error


@pytest.mark.parametrize("operation", NAMING, ids=by_name)
async def test_an_object_of_another_account_is_not_found(api: Api, operation: Operation) -> None:
    found, other = await furnish(api), await api.account(name="two")
    status, error = await send(api, operation, other, found)
    assert (status, error["code"].endswith("_not_found")) == (404, True), error
    if not operation.is_endless:  # the owner finds it, so the example names what exists
        assert (await send(api, operation, api.key, found))[0] != 404


def test_the_matrix_covers_the_kinds_of_objects() -> None:
    names = {operation.name for operation in NAMING}
    assert {"getSession", "execute", "readFile", "getProcess", "deleteContext", "getSnapshot", "createImage"} <= names
    assert {"deleteImage", "revokeKey", "watchFiles", "forkSession", "createPreviewToken"} <= names


async def test_a_terminal_needs_the_scope_of_its_operation(api: Api) -> None:
    session = await api.session()
    for scopes, status in ((set(Scope) - {Scope.SESSIONS_WRITE}, 403), ({Scope.SESSIONS_WRITE}, 101)):
        headers = {**UPGRADE, "Authorization": f"Bearer {await api.key_with(*scopes)}"}
        url = f"{api.url}/sessions/{session}/terminal"
        async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
            assert answer.status == status
            if status == 403:
                assert (await answer.json())["error"]["details"] == {"scope": "sessions:write"}


async def test_a_key_from_before_scopes_may_do_all_but_what_is_the_operators(api: Api) -> None:
    key = await api.key_with(*ACCOUNT_SCOPES)
    for operation in OPERATIONS:
        status, error = await send(api, operation, key)
        assert (status == 403) is (operation.scope is Scope.OPERATOR), (operation.name, error)


async def test_a_scope_is_checked_before_the_query_and_the_body(api: Api) -> None:
    key = await api.key_with(Scope.ACCOUNT_READ)
    for method, path in (("GET", "/sessions?x=1"), ("POST", "/execute"), ("HEAD", "/sessions")):
        assert (await api.call(method, path, b"{" if method == "POST" else None, key=key)).status == 403


async def test_a_key_of_the_operator_reads_the_metrics_of_the_server(api: Api) -> None:
    await api.session()
    answer = await api.call("GET", "/metrics", key=await api.key_with(Scope.OPERATOR))
    assert answer.headers["Content-Type"] == (await api.metrics()).headers["Content-Type"]
    assert b'buntime_requests_total{method="POST",route="/sessions/create",status="200"} 1.0' in answer.body
