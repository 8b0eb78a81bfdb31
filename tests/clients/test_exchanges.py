"""The recorded exchanges match the server and its description."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest

from tests.acceptance.server import Server
from tests.clients.constants import archive, pack
from tests.clients.exchanges import DIRECTORY, Exchange, Recorder
from tests.clients.scenario import SCENARIO, SITE

DOCUMENT = json.loads((DIRECTORY.parents[1] / "docs" / "openapi.json").read_text())
RECORDED: Mapping[str, Exchange] = {
    path.stem: json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))
}
NAMES = {step.name for one in SCENARIO for step in (one, one.on_ready) if step} - {""}
PAGES = {"getFront", "getClients", "getPythonClient", "getNpmClient", "getOpenapiJson", "getDocs"}
WITHOUT_EXCHANGE = {"terminal", "getHealthz", "getReadyz", "getMetrics", *PAGES}


@pytest.fixture(scope="module")
def made(server: Server) -> Mapping[str, Exchange]:
    return Recorder(server).exchanges()


@pytest.mark.sandbox
@pytest.mark.parametrize("name", RECORDED)
def test_the_server_answers_as_recorded(made: Mapping[str, Exchange], name: str) -> None:
    assert made[name] == RECORDED[name], "if you meant to change it, run: python -m tests.clients.exchanges record"


def test_every_step_has_a_file_and_every_file_a_step() -> None:
    assert set(RECORDED) == NAMES
    assert all(exchange["name"] == name for name, exchange in RECORDED.items())


def test_every_operation_is_recorded() -> None:
    described = {one["operationId"] for methods in DOCUMENT["paths"].values() for one in methods.values()}
    recorded = {_operation(exchange)["operationId"] for exchange in RECORDED.values()}
    assert described - recorded == WITHOUT_EXCHANGE


@pytest.mark.parametrize("exchange", RECORDED.values(), ids=RECORDED)
def test_a_recorded_exchange_matches_the_description(exchange: Exchange) -> None:
    operation, request, response = _operation(exchange), exchange["request"], exchange["response"]
    described = operation["responses"][str(response["status"] if response["status"] != 206 else 200)]
    media = described["content"][response["headers"]["content-type"].partition(";")[0]]
    if "body" in response:
        _validate(media["schema"], response["body"])
    if request.get("body") is not None and response["status"] != 400:
        _validate(operation["requestBody"]["content"]["application/json"]["schema"], request["body"])
    known = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    assert {name for name in request["query"] if not name.startswith("metadata.")} <= known


def test_recorded_archives_have_the_expected_contents() -> None:
    assert RECORDED["write-archive"]["request"]["bodyBase64"] == archive(pack(SITE))


def _operation(exchange: Exchange) -> dict[str, Any]:
    request = exchange["request"]
    for path, methods in DOCUMENT["paths"].items():
        if request["method"].lower() in methods and _matches(path, request["path"]):
            return dict(methods[request["method"].lower()])
    raise AssertionError(f"{request['method']} {request['path']} is not described")


def _matches(described: str, path: str) -> bool:
    wanted, parts = described.split("/"), path.split("/")
    return len(wanted) == len(parts) and all(
        want == part or want.startswith("{") for want, part in zip(wanted, parts, strict=True)
    )


def _validate(schema: dict[str, Any], value: object) -> None:
    jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, value)
