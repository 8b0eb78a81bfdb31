"""Errors: one class for each of the server's codes."""

import pickle
from collections.abc import Iterator

import buntime_sdk
import pytest
from buntime_sdk import BuntimeError, ConnectionFailed, NotFound, RequestTimeout, Unavailable
from buntime_sdk.errors import error_of
from stand_in import Answer, Player, refusal

import buntime.errors


def _kinds(base: type[buntime.errors.BuntimeError]) -> Iterator[type[buntime.errors.BuntimeError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


SERVER_CODES = {kind.code: kind for kind in _kinds(buntime.errors.BuntimeError) if "code" in vars(kind)} | {
    "internal_error": buntime.errors.BuntimeError
}
OWN = {"internal_error": "InternalError"}  # has no class in the server


def test_every_code_of_the_server_has_a_class_and_every_class_a_code() -> None:
    assert BuntimeError.codes.keys() == SERVER_CODES.keys()


@pytest.mark.parametrize("code", SERVER_CODES)
def test_the_class_of_a_code_is_public_and_has_the_servers_name(code: str) -> None:
    name = OWN.get(code, SERVER_CODES[code].__name__)
    kind = getattr(buntime_sdk, name)
    assert name in buntime_sdk.__all__
    assert kind.__bases__ == (BuntimeError,)
    assert type(error_of({"code": code}, 400)) is kind


@pytest.mark.parametrize("code", SERVER_CODES)
def test_a_code_raises_its_class_with_every_field_of_the_error(code: str) -> None:
    shown = {"code": code, "message": "Not so.", "retryable": True, "details": {"field": "ttl", "limit": 3}}
    raised = error_of(shown, 418, "r1", 2.5)
    assert (raised.code, raised.status, raised.message, str(raised)) == (code, 418, "Not so.", "Not so.")
    assert (raised.details, raised.retryable) == ({"field": "ttl", "limit": 3}, True)
    assert (raised.request_id, raised.retry_after) == ("r1", 2.5)


def test_a_refusal_has_its_status_request_id_and_retry_after(player: Player) -> None:
    answer = refusal("session_limit_exceeded", 429, retryable=True, after=7, active=1)
    answer = Answer(answer.status, answer.body, {**answer.headers, "X-Request-Id": "r1"})
    with pytest.raises(buntime_sdk.SessionLimitExceeded) as caught:
        player.once([answer], lambda client: client.sessions.create())
    assert (caught.value.status, caught.value.request_id, caught.value.retry_after) == (429, "r1", 7.0)
    assert caught.value.retryable
    assert caught.value.details == {"active": 1}


def test_an_unknown_code_raises_the_base_class() -> None:
    raised = error_of({"code": "new_in_2031", "message": "Later."}, 418)
    assert (type(raised), raised.code, raised.message) == (BuntimeError, "new_in_2031", "Later.")


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (404, NotFound, "not_found", False),
        (503, Unavailable, "unavailable", True),
        (502, BuntimeError, "unexpected_answer", True),
        (301, BuntimeError, "unexpected_answer", False),
    ],
)
def test_a_proxys_response_gets_its_code_from_the_status(
    player: Player, status: int, kind: type[BuntimeError], code: str, retryable: bool
) -> None:
    with pytest.raises(BuntimeError) as caught:
        player.once([Answer(status, "<html>nginx</html>")], lambda client: client.sessions.get("ses_1"), max_retries=0)
    assert (type(caught.value), caught.value.code, caught.value.status) == (kind, code, status)
    assert caught.value.retryable is retryable


def test_a_response_that_is_not_json_raises_an_error_that_says_so(player: Player) -> None:
    with pytest.raises(BuntimeError, match="Is this a buntime server") as caught:
        player.once([Answer(200, "<html>Welcome</html>")], lambda client: client.sessions.get("ses_1"))
    assert caught.value.code == "unexpected_answer"


def test_a_proxys_redirect_is_not_taken_for_a_file(player: Player) -> None:
    moved = Answer(302, "<html>Log in</html>", {"Location": "/login"})
    with pytest.raises(BuntimeError, match="302"):
        player.once([moved], lambda client: client.sessions.open("ses_1").files.chunks("a"))


@pytest.mark.parametrize(
    "failure",
    [
        error_of({"code": "file_not_found", "message": "No.", "details": {"path": "a"}}, 404, "r1", 2.0),
        ConnectionFailed("Broken.", begun=True),
        RequestTimeout("Late."),
    ],
)
def test_errors_can_be_pickled(failure: BuntimeError) -> None:
    again = pickle.loads(pickle.dumps(failure))
    assert type(again) is type(failure)
    assert (str(again), vars(again)) == (str(failure), vars(failure))


def test_a_missing_key_raises_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUNTIME_API_KEY", raising=False)
    for kind in (buntime_sdk.Buntime, buntime_sdk.AsyncBuntime):
        with pytest.raises(buntime_sdk.Unauthorized, match="BUNTIME_API_KEY"):
            kind()


def test_the_server_and_the_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNTIME_API_KEY", "btk_from_a_file\n")
    monkeypatch.setenv("BUNTIME_URL", "http://example.com:81/")
    client = buntime_sdk.Buntime()
    assert client.base_url == "http://example.com:81"
    assert client._calls._headers["Authorization"] == "Bearer btk_from_a_file"
    client.close()
