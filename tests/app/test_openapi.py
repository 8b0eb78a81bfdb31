"""The OpenAPI description is valid, complete and checked in."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from buntime.errors import BuntimeError
from buntime.scope import Scope
from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.examples import ANSWERS, BODIES
from buntime.web.failures import BY_CODE, STATUS
from buntime.web.openapi import document
from tests.app.serving import Api

CHECKED_IN = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = json.loads(msgspec.json.encode(document(OPERATIONS, openapi_pages())))


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def resolved(value: Any) -> Any:
    """Replaces every $ref with its target. Raises KeyError for a $ref without a target."""
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        found = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return resolved(found)
    return {name: resolved(item) for name, item in value.items()}


def test_the_checked_in_document_is_current() -> None:
    made = "python -m buntime.web.openapi_file > docs/openapi.json"
    assert json.loads(CHECKED_IN.read_text()) == DOCUMENT, f"run: {made}"


def test_every_reference_names_something_and_every_schema_is_one() -> None:
    whole = resolved(DOCUMENT)
    for _, _, operation in operations():
        found = resolved(operation)
        schemas = [one["schema"] for one in found.get("parameters", ())]
        schemas += [media["schema"] for one in found["responses"].values() for media in one["content"].values()]
        schemas += [header["schema"] for one in found["responses"].values() for header in one["headers"].values()]
        for schema in schemas:
            jsonschema_rs.meta.validate(schema)
    for schema in whole["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_operation_is_described_once() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, method, _ in operations()}
    routed = {(operation.method, operation.path) for operation in OPERATIONS}
    assert described == routed | {("GET", page.path) for page in openapi_pages()}
    names = [one["operationId"] for _, _, one in operations()]
    assert len(set(names)) == len(names)
    for _, _, operation in operations():
        assert not operation["summary"].endswith("."), "a summary is a heading"
        first = operation["summary"].partition(" ")[0]
        assert first not in ("The", "This", "Whether", "Where", "How", "Metrics"), "a summary says what the call does"


def test_every_group_of_operations_is_described_in_a_sentence() -> None:
    assert {tag for _, _, one in operations() for tag in one["tags"]} == {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])


def test_the_introduction_leads_to_the_other_pages() -> None:
    assert {"](/)", "](/clients/)"} <= set(re.findall(r"\]\(\S+?\)", DOCUMENT["info"]["description"]))


def test_the_introduction_says_what_all_calls_have_in_common() -> None:
    told = DOCUMENT["info"]["description"]
    for word in ("BUNTIME_URL", "BUNTIME_API_KEY", "`details`", "X-Request-Id", "Idempotency-Key", "X-RateLimit-Limit"):
        assert word in told, word


def test_every_operation_says_which_scope_it_needs_to_programs_and_to_people() -> None:
    for path, method, operation in operations():
        if operation.get("security") == []:
            continue
        ((scope,),) = (needed["key"] for needed in operation["security"])
        assert scope in set(Scope), (method, path)
        assert f"`{scope}`" in operation["description"], (method, path)


def test_readiness_is_shown_with_the_names_of_its_checks() -> None:
    shown = DOCUMENT["paths"]["/readyz"]["get"]["responses"]
    for status, whole in (("200", True), ("503", False)):
        example = shown[status]["content"]["application/json"]["example"]
        assert example["ready"] is all(example["checks"].values()) is whole
        assert set(example["checks"]) == {"volumes", "rules", "room"}


def test_every_answer_of_the_api_describes_its_headers_and_failures() -> None:
    for path, _, operation in operations():
        if operation.get("security") == []:
            continue
        responses = operation["responses"]
        assert {"400", "401", "403", "408", "429", "500", "503"} <= set(responses), path
        assert set(responses) & {"101", "200"}, path
        assert "WWW-Authenticate" in responses["401"]["headers"]
        assert {"Retry-After", "X-RateLimit-Reset"} <= set(responses["429"]["headers"])
        assert all("X-Request-Id" in one["headers"] for one in responses.values())
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            assert "413" in responses, path


def test_a_download_can_be_in_parts_and_conditional() -> None:
    described = DOCUMENT["paths"]["/files/content"]["get"]
    headers = {one["name"] for one in described["parameters"] if one["in"] == "header"}
    assert {"Range", "If-Range", "If-None-Match", "If-Modified-Since"} <= headers
    assert {"ETag", "Last-Modified", "Accept-Ranges"} <= set(described["responses"]["200"]["headers"])
    assert "Content-Range" in described["responses"]["206"]["headers"]
    assert described["responses"]["304"]["content"] == {}


def test_streams_that_go_on_say_after_what() -> None:
    resumed = {
        path for path, _, one in operations() for known in one.get("parameters", ()) if known["name"] == "Last-Event-ID"
    }
    assert resumed == {"/events", "/processes/logs"}


def test_a_terminal_is_an_upgrade() -> None:
    responses = DOCUMENT["paths"]["/sessions/{sessionId}/terminal"]["get"]["responses"]
    assert "101" in responses
    assert "200" not in responses


@pytest.mark.parametrize("name", sorted(BODIES))
def test_an_example_of_a_body_is_valid(name: str) -> None:
    operation = next(resolved(one) for _, _, one in operations() if one["operationId"] == name)
    jsonschema_rs.validate(operation["requestBody"]["content"]["application/json"]["schema"], BODIES[name])


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_an_example_of_an_answer_is_valid(name: str) -> None:
    operation = next(resolved(one) for _, _, one in operations() if one["operationId"] == name)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate(schema, ANSWERS[name])


def test_every_failure_has_a_status() -> None:
    def below(kind: type[BuntimeError]) -> set[type[BuntimeError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert {kind.code for kind in below(BuntimeError)} <= set(BY_CODE)
    assert len({kind.code for kind in STATUS}) == len(STATUS)


async def test_the_server_gives_the_same_document(api: Api) -> None:
    answer = await api.call("GET", "/openapi.json", key="")
    assert answer.json == DOCUMENT
    assert answer.headers["Content-Type"] == "application/json"
