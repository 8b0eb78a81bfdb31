"""Every error says what is wrong with the request."""

import json
import re
from collections.abc import AsyncIterator

import pytest

from tests.app.serving import Api

CREATE = "/sessions/create"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"[]", "body"),
        (b"null", "body"),
        (b'"text"', "body"),
        (b"{", "body"),
        (b"{} {}", "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b'{"onWake": "\xff"}', "body"),
        (b'{"onWake": "\xed\xa0\x80"}', "body"),
        (b'{"onWake": "\\ud800"}', "body"),
        (b'{"metadata": {"a": "\\ud800 and more"}}', "body"),
        (b'{"metadata": {"\\udfff": 1}}', "body"),
        (b'{"metadata": {"a": NaN}}', "body"),
        (b'{"metadata": {"a": 1e999}}', "metadata"),
        (b'{"metadata": {"a": ' + b"9" * 5000 + b"}}", "metadata"),
        (b'{"metadata": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}", "metadata"),
        (b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "body"),
        (b'{"metadata": []}', "metadata"),
        (b'{"metadata": null}', "metadata"),
        (b'{"tll": 400}', "tll"),
        (b'{"resourceLimits": {"cpus": 1}}', "resourceLimits.cpus"),
        (b'{"ttl": true}', "ttl"),
        (b'{"ttl": "400"}', "ttl"),
        (b'{"ttl": 400.0}', "ttl"),
        (b'{"ttl": null}', "ttl"),
        (b'{"ttl": ' + b"9" * 40 + b"}", "ttl"),
        (b'{"ttl": ' + b"9" * 400 + b"}", "ttl"),
        (b'{"ttl": ' + b"9" * 5000 + b"}", "ttl"),
        (b'{"sleepPolicy": {"idleAfter": ' + b"9" * 400 + b"}}", "sleepPolicy.idleAfter"),
        (b'{"resourceLimits": {"memory": ' + b"9" * 400 + b"}}", "resourceLimits.memory"),
        (b'{"resourceLimits": {"cpu": ' + b"9" * 400 + b"}}", "resourceLimits.cpu"),
        (b'{"ttl": -1}', "ttl"),
        (b'{"resourceLimits": {"cpu": true}}', "resourceLimits.cpu"),
        (b'{"resourceLimits": {"cpu": 1e400}}', "resourceLimits.cpu"),
        (b'{"resourceLimits": {"memory": 512.5}}', "resourceLimits.memory"),
        (b'{"env": {"A": 1}}', "env.A"),
        (b'{"env": {"A": "x", "B": {"A": 1}}}', "env.B"),
        (b'{"env": {"1A": "x"}}', "env"),
        (b'{"env": {"A": "a\\u0000"}}', "env.A"),
        (b'{"preview": {"ports": [8080, "x"]}}', "preview.ports[1]"),
        (b'{"preview": {"visibility": "hidden"}}', "preview.visibility"),
        (b'{"preview": {"ports": [80]}}', "preview.ports"),
        (b'{"network": {"allow": ["http://example.com"]}}', "network.allow"),
        (b'{"onWake": ""}', "onWake"),
    ],
)
async def test_a_bad_body_is_invalid_and_its_field_is_named(api: Api, body: bytes, field: str) -> None:
    answer = await api.call("POST", CREATE, body)
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["details"]["field"] == field
    assert answer.error["retryable"] is False
    assert answer.error["message"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=1.0", "limit"),
        ("?limit=", "limit"),
        ("?limit=%EF%BC%91", "limit"),
        ("?limit=" + "9" * 30, "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?offset=-1", "offset"),
        (f"?offset={2**53}", "offset"),
        ("?lmit=1", "lmit"),
        ("?state=deleting", "state"),
        ("?state=", "state"),
        ("?metadata.=x", "metadata."),
        ("?metadata.a=x&metadata.a=y", "metadata.a"),
        ("?metadata=x", "metadata"),
        ("?limit=%ff", "query"),
    ],
)
async def test_a_bad_query_is_invalid_and_its_parameter_is_named(api: Api, query: str, field: str) -> None:
    answer = await api.call("GET", "/sessions" + query)
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["details"]["field"] == field


async def test_a_query_is_refused_if_the_endpoint_has_none(api: Api) -> None:
    answer = await api.call("POST", CREATE + "?ttl=300", {})
    assert answer.error["details"]["field"] == "ttl"


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", CREATE, {"network": {"egress": "no"}}, "network.egress must be internet or none, not 'no'."),
        ("POST", CREATE, {"network": {"egress": 5}}, "network.egress must be internet or none, not a whole number."),
        ("POST", CREATE, {"preview": {"visibility": None}}, "preview.visibility must be public or private, not null."),
        ("GET", "/sessions?state=on", None, "state must be active, idle or deep-sleep, not 'on'."),
        ("GET", "/sessions?state=", None, "state must be active, idle or deep-sleep, not ''."),
        ("POST", "/sessions/ses_a/sleep", {"depth": "deep"}, "depth must be idle or deep-sleep, not 'deep'."),
        (
            *("POST", "/execute", {"sessionId": "s", "files": [{"path": "a", "content": "", "encoding": "hex"}]}),
            "files[0].encoding must be utf8 or base64, not 'hex'.",
        ),
        (
            *("POST", "/files/write", {"sessionId": "s", "path": "a", "content": "", "encoding": "x" * 900}),
            f"encoding must be utf8 or base64, not '{'x' * 199}….",
        ),
        ("GET", "/files/list?sessionId=s&recursive=yes", None, "recursive must be true or false, not 'yes'."),
    ],
)
async def test_a_field_that_takes_some_values_names_them(
    api: Api, method: str, path: str, body: dict[str, object] | None, message: str
) -> None:
    answer = await api.call(method, path, body) if body is not None else await api.call(method, path)
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["message"] == message


async def test_a_signal_that_does_not_exist_is_answered_with_those_that_do(api: Api) -> None:
    body = {"sessionId": "s", "processId": "p", "signal": "SIGFOO"}
    message = (await api.call("POST", "/processes/signal", body)).error["message"]
    assert re.fullmatch(r"signal must be SIG.*SIGTERM.* or SIG\w+, not 'SIGFOO'\.", message)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (CREATE, {"ttl": 300.0}, "ttl must be a whole number, written without a decimal point."),
        (
            *("/files/write", {"sessionId": "s", "path": "a", "content": "", "mode": "rwx"}),
            "mode must be 3 or 4 octal digits, such as 644.",
        ),
        (
            *("/execute", {"sessionId": "s", "code": "1", "files": [{"path": "a", "content": "", "mode": "8"}]}),
            "files[0].mode must be 3 or 4 octal digits, such as 644.",
        ),
    ],
)
async def test_a_value_of_the_wrong_form_is_answered_with_the_right_one(
    api: Api, path: str, body: dict[str, object], message: str
) -> None:
    answer = await api.call("POST", path, body)
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["message"] == message


WITHOUT_BODY = [
    ("POST", "/sessions/ses_abc123def456ghi789/wake"),
    ("DELETE", "/sessions/ses_abc123def456ghi789"),
    ("DELETE", "/files/delete?sessionId=s&path=a"),
    ("GET", "/sessions"),
    ("GET", "/files/watch?sessionId=s"),
]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b'{"a":1}', "a"), (b"{bad", "body"), (b"x=1", "body"), (b"[]", "body"), (b"[" * 70_000, "body")],
)
@pytest.mark.parametrize(("method", "path"), WITHOUT_BODY)
async def test_a_call_without_a_body_refuses_one(api: Api, method: str, path: str, body: bytes, field: str) -> None:
    answer = await api.call(method, path, body)
    assert answer.refusal == (400, "invalid_request"), answer.body
    assert answer.error["details"]["field"] == field


@pytest.mark.parametrize(("method", "path"), WITHOUT_BODY)
@pytest.mark.parametrize("body", [b"", b"{}", b" {} "])
async def test_a_call_without_a_body_takes_an_empty_object(api: Api, method: str, path: str, body: bytes) -> None:
    answer = await api.call(method, path, body)
    assert answer.status in (200, 404)


async def test_a_body_without_a_length_is_refused_too(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a"'
        yield b": 1}"

    headers = {"Authorization": f"Bearer {api.key}"}
    async with api.http.post(api.url + WITHOUT_BODY[0][1], data=chunks(), headers=headers) as streamed:
        assert streamed.status == 400


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_a_wrong_content_type_is_invalid(api: Api, media: str) -> None:
    for path in (CREATE, "/execute", "/files/write"):
        answer = await api.call("POST", path, b"{}", Content_Type=media)
        assert answer.refusal == (400, "invalid_request")
        assert answer.error["details"]["field"] == "Content-Type"


async def test_only_utf8_charsets_are_accepted(api: Api) -> None:
    for media in ("application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        assert (await api.call("POST", CREATE, b"{}", Content_Type=media)).status == 200
    assert (await api.call("POST", CREATE, b"{}", Content_Type="application/json; charset=latin1")).status == 400


async def test_an_empty_body_of_any_type_creates_a_session_and_nothing_else(api: Api) -> None:
    assert (await api.call("POST", CREATE)).status == 200
    assert (await api.call("POST", CREATE, b"", Content_Type="text/plain")).status == 200
    assert (await api.call("POST", "/execute", b"")).refusal == (400, "invalid_request")


async def test_a_repeated_name_in_a_body_is_tolerated(api: Api) -> None:
    assert (await api.call("POST", CREATE, b'{"ttl": 300, "ttl": 400}')).status == 200


async def test_required_fields_are_named(api: Api) -> None:
    assert (await api.call("POST", "/execute", {})).error["details"]["field"] == "sessionId"
    body = {"sessionId": "x", "code": "1", "files": [{"path": "a", "content": ""}, {"path": "b"}]}
    assert (await api.call("POST", "/execute", body)).error["details"]["field"] == "files[1].content"
    assert (await api.call("GET", "/files/read?sessionId=x")).error["details"]["field"] == "path"


async def test_a_body_over_the_plan_is_refused_by_its_length_and_while_reading(api: Api) -> None:
    key = await api.account("free", "small", body_mb=1)
    body = json.dumps({"metadata": {"a": "x" * (1 << 20)}}).encode()
    answer = await api.call("POST", CREATE, body, key=key)
    assert answer.refusal == (413, "payload_too_large")
    assert answer.error["details"] == {"plan": "free", "limit": 1 << 20}

    async def chunks() -> AsyncIterator[bytes]:  # a body without a length
        for _ in range(3):
            yield b" " * (1 << 19)

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with api.http.post(api.url + CREATE, data=chunks(), headers=headers) as streamed:
        assert streamed.status == 413


async def test_an_error_repeats_only_a_little_of_the_clients_text(api: Api) -> None:
    answer = await api.call("POST", CREATE, {"x" * 100_000: 1})
    assert answer.status == 400
    assert len(answer.body) < 2000
