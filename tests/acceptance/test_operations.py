"""What an operator relies on: health, metrics, the API's description, and logs without secrets."""

import json
import re
import stat
from uuid import uuid4

import pytest

from tests.acceptance.client import Client
from tests.acceptance.server import Server
from tests.metrics_page import METRICS

pytestmark = pytest.mark.sandbox

OPERATIONS = {
    "/sessions/create": {"post"},
    "/sessions": {"get"},
    "/sessions/{sessionId}": {"get", "patch", "delete"},
    "/execute": {"post"},
    "/files/write": {"post"},
    "/files/list": {"get"},
    "/files/read": {"get"},
    "/files/delete": {"delete"},
}


def test_health_and_readiness_need_no_key(server: Server) -> None:
    stranger = server.client(None)
    assert stranger.call("GET", "/healthz").done() == {"status": "ok"}
    ready = stranger.call("GET", "/readyz").done()
    assert ready["ready"] is True
    assert all(ready["checks"].values())


def test_metrics_count_requests_and_the_pool(server: Server, paid: Client) -> None:
    paid.call("GET", "/sessions/unknown")
    text = server.metrics()
    assert re.search(
        r'^buntime_requests_total\{method="GET",route="/sessions/\{sessionId\}",status="404"\} [1-9]', text, re.M
    )
    assert re.search(r"^buntime_pool_parked \d", text, re.M)
    assert not re.search(r"\b(ses|acc)_", text)


def test_a_real_server_shows_the_metrics_of_the_page_and_no_others(server: Server) -> None:
    shown = set(re.findall(r"^# TYPE (\w+) ", server.metrics(), re.M))
    assert shown == {metric.name for metric in METRICS}


def test_metrics_are_for_the_operator_alone(server: Server, paid: Client) -> None:
    server.client(None).call("GET", "/metrics").refused(401, "unauthorized")
    assert paid.call("GET", "/metrics").refused(403, "forbidden") == {"scope": "operator"}
    status = server.config.metrics_socket.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)


def test_the_api_describes_itself_completely(server: Server) -> None:
    document = server.client(None).call("GET", "/openapi.json").done()
    assert document["openapi"].startswith("3.1")
    for path, methods in OPERATIONS.items():
        assert methods <= set(document["paths"][path]), path
        for method in methods:
            operation = document["paths"][path][method]
            assert {"200", "400", "401", "403", "429", "500", "503"} <= set(operation["responses"]), (path, method)
            for status, response in operation["responses"].items():
                assert {"X-Request-Id", "X-RateLimit-Remaining"} <= set(response["headers"]) or status == "401"


def test_the_documentation_is_one_page_that_loads_nothing_from_elsewhere(server: Server) -> None:
    reply = server.client(None).call("GET", "/docs")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = reply.body.decode()
    assert all(path in page for path in OPERATIONS)
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"' >]*""", page) == []
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_every_answer_has_a_request_id_and_a_proper_one_is_echoed(server: Server, paid: Client) -> None:
    for path in ("/healthz", "/sessions", "/nowhere", "/docs", "/sessions/unknown"):
        assert paid.call("GET", path).headers["x-request-id"]
        mine = f"mine-{uuid4()}"
        assert paid.call("GET", path, headers={"X-Request-Id": mine}).headers["x-request-id"] == mine
        for improper in ("x" * 129, "with space", "\xe4"):
            assert paid.call("GET", path, headers={"X-Request-Id": improper}).headers["x-request-id"] != improper
    assert server.client(None).call("GET", "/sessions").headers["x-request-id"]


def test_unknown_routes_and_methods_are_refused_in_the_form_of_the_api(paid: Client) -> None:
    for path in (
        "/nowhere",
        "/v1/sessions",
        "/sessions/a/b",
        "/files",
        "//",
        "/sessions/create/",
    ):
        paid.call("GET", path).refused(404, "not_found")
    for method, path in (("GET", "/execute"), ("PUT", "/sessions"), ("DELETE", "/files/write"), ("TRACE", "/sessions")):
        refused = paid.call(method, path)
        assert refused.status == 405
        assert refused.error["code"] == "method_not_allowed"
        assert refused.headers["allow"]


@pytest.mark.parametrize("refusal", ["head too large", "no http", "length that is none"])
def test_the_edges_own_refusals_have_the_same_form(paid: Client, refusal: str) -> None:
    if refusal == "head too large":
        reply = paid.call("GET", "/sessions", headers={"X-Large": "x" * 100_000})
        assert reply.status in (400, 431)
    elif refusal == "no http":
        reply = paid.call("GET", "/sessions\x7f".replace("\x7f", "%zz"))
    else:
        reply = paid.call("POST", "/sessions/create", headers={"Content-Length": "-5"})
    assert reply.status in (400, 404, 431)
    assert reply.error["code"] in ("invalid_request", "not_found")


def test_logs_are_lines_of_json_with_request_ids_and_without_secrets(server: Server) -> None:
    """Everything that the client sends here is secret, and must not be in the log."""
    told = ("code", "env", "meta", "path", "content", "stdin", "output", "header", "query")
    secrets = {name: f"secret{name}{uuid4().hex}" for name in told}
    client = server.new_client("paid")
    session = client.open(env={"TOKEN": secrets["env"]}, metadata={secrets["meta"]: secrets["meta"]})
    request = f"log-{uuid4()}"
    reply = client.call(
        "POST",
        "/execute",
        json_body={
            "sessionId": session.id,
            "code": f"console.log('{secrets['output']}'); throw new Error('{secrets['code']}')",
            "stdin": secrets["stdin"],
            "files": [{"path": secrets["path"], "content": secrets["content"]}],
        },
        headers={"X-Request-Id": request, "X-Other": secrets["header"]},
    )
    assert reply.done()["exitCode"] == 1
    session.read(secrets["path"]).done()
    session.read(secrets["path"] + "/missing")
    client.call("GET", f"/{secrets['path']}", query={secrets["query"]: 1})
    client.call("GET", f"/sessions/{secrets['path']}")
    session.delete().done()
    assert client.key
    lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request") == request]
    assert [(line["route"], line["status"], line["session"]) for line in mine] == [("/execute", 200, session.id)]
    assert all({"timestamp", "level", "event"} <= set(line) for line in lines)
    text = server.said()
    assert [name for name, secret in secrets.items() if secret in text] == []
    assert client.key not in text
