"""Previews from programs: `fetch` reaches a session's server by the API's address, with a token where one is needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import pytest
from buntime_sdk import Buntime, ConnectionFailed, InvalidRequest, SessionNotFound, Unauthorized, Unavailable
from buntime_sdk.deadlines import NEVER
from buntime_sdk.previews import Visit
from stand_in import KEY, LOST, Answer, Player, refusal

PUBLIC = {"visibility": "public", "ports": [8080]}
SESSION = {"sessionId": "ses_1", "previewUrl": "http://ses-1.localhost:8000", "createdAt": "2024-01-19T10:30:00Z"}
MADE, SEEN = Answer(body=SESSION), Answer(body={**SESSION, "preview": PUBLIC})
TOKEN = Answer(body={"url": "http://x", "token": "bpt_1", "expiresAt": "2024-01-19T10:30:00Z"})
RENEWED = Answer(body={"url": "http://x", "token": "bpt_2", "expiresAt": "2024-01-19T10:30:00Z"})
HELLO = Answer(body="hello", headers={"Content-Type": "text/plain"})


def refused(code: str, status: int, after: int | None = None) -> Answer:
    """What the server itself answers for a preview."""
    answer = refusal(code, status, after=after)
    return Answer(answer.status, answer.body, {**answer.headers, "X-Preview-Error": code})


LOCKED = refused("unauthorized", 401)
WAKING = refused("unavailable", 503, after=2)
NOTHING = refused("unavailable", 502, after=1)


def made(client: Any) -> Any:
    return client.sessions.create()


def private(client: Any) -> Any:
    return client.sessions.create(preview={"visibility": "private"})


def fetched(session: Any) -> Any:
    return session.fetch()


def hosts_and_tokens(asked: Sequence[Any]) -> list[tuple[str, str | None]]:
    return [
        (one.headers["host"], one.headers.get("x-preview-token")) for one in asked if "preview-token" not in one.path
    ]


def test_a_request_goes_to_the_apis_address_under_the_previews_name(player: Player) -> None:
    def post(session: Any) -> Any:
        return session.fetch("/api?a=1", method="POST", params={"b": 2}, headers={"X-Mine": "yes"}, json={"n": 1})

    response, server = player.once([MADE, HELLO], made, post)
    assert isinstance(response, httpx2.Response)
    assert (response.status_code, response.text) == (200, "hello")
    assert str(response.url) == "http://ses-1.localhost:8000/api?a=1&b=2"
    asked = server.asked[1]
    assert (asked.method, asked.path, asked.query) == ("POST", "/api", {"a": "1", "b": "2"})
    assert (asked.headers["host"], asked.headers["x-mine"], asked.json) == ("ses-1.localhost:8000", "yes", {"n": 1})


def test_the_api_key_never_goes_to_a_session(player: Player) -> None:
    _, server = player.once([MADE, HELLO], made, fetched)
    assert "authorization" in server.asked[0].headers
    assert KEY not in str(server.asked[1].headers)


def test_another_port_has_its_own_name_and_needs_a_token(player: Player) -> None:
    _, server = player.once([MADE, TOKEN, HELLO], made, lambda session: session.fetch(port=3000))
    assert hosts_and_tokens(server.asked[1:]) == [("ses-1-3000.localhost:8000", "bpt_1")]


def test_one_token_serves_all_requests_of_a_client_to_a_session(player: Player) -> None:
    session: Any = None

    def first(given: Any) -> Any:
        nonlocal session
        session = given
        return session.fetch()

    _, server = player.once([MADE, TOKEN, HELLO], private, first, lambda _: session.fetch(port=3000))
    assert [one.path for one in server.asked] == ["/sessions/create", "/sessions/ses_1/preview-token", "/", "/"]
    assert [token for _, token in hosts_and_tokens(server.asked[2:])] == ["bpt_1", "bpt_1"]


def test_a_preview_that_became_private_gets_a_token_when_the_server_asks_for_one(player: Player) -> None:
    response, server = player.once([MADE, LOCKED, TOKEN, HELLO], made, fetched)
    assert response.text == "hello"
    assert [token for _, token in hosts_and_tokens(server.asked[1:])] == [None, "bpt_1"]


def test_a_revoked_token_is_replaced_once(player: Player) -> None:
    response, server = player.once([MADE, TOKEN, LOCKED, RENEWED, HELLO], private, fetched)
    assert response.text == "hello"
    assert [token for _, token in hosts_and_tokens(server.asked[1:])] == ["bpt_1", "bpt_2"]
    with pytest.raises(Unauthorized):
        player.once([MADE, TOKEN, LOCKED, RENEWED, LOCKED], private, fetched)


def test_an_unauthorized_of_the_program_itself_is_its_response(player: Player) -> None:
    response, server = player.once([MADE, Answer(401, {"error": {"code": "unauthorized"}})], made, fetched)
    assert (response.status_code, len(server.asked)) == (401, 2)


def test_a_session_opened_by_its_id_is_looked_up_first(player: Player) -> None:
    response, server = player.once([SEEN, HELLO], lambda client: client.sessions.open("ses_1").fetch())
    assert response.text == "hello"
    assert [one.path for one in server.asked] == ["/sessions/ses_1", "/"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_while_the_session_wakes_the_servers_advice_is_followed_whatever_the_method(
    player: Player, method: str
) -> None:
    answers = [MADE, *[WAKING] * 5, HELLO]
    response, server = player.once(answers, made, lambda session: session.fetch(method=method, content=b"x"))
    assert (response.text, len(server.asked)) == ("hello", 7)
    assert player.paused == [2.0] * 5
    assert [one.body for one in server.asked[1:]] == [b"x"] * 6


def test_a_wake_that_outlasts_the_timeout_raises_unavailable(player: Player) -> None:
    with pytest.raises(Unavailable) as caught:
        player.once([MADE, WAKING], made, lambda session: session.fetch(timeout=7))
    assert (caught.value.status, player.paused) == (503, [2.0] * 3)


def test_a_port_on_which_nothing_listens_is_tried_as_often_as_any_call(player: Player) -> None:
    response, _ = player.once([MADE, NOTHING, NOTHING, HELLO], made, fetched)
    assert response.text == "hello"
    with pytest.raises(Unavailable) as caught:
        player.once([MADE, NOTHING], made, fetched, max_retries=1)
    assert caught.value.status == 502
    assert player.paused == [1.0] * 3


def test_no_retries_means_none_for_previews_too(player: Player) -> None:
    with pytest.raises(Unavailable):
        player.once([MADE, WAKING], made, fetched, max_retries=0)
    assert player.paused == []


def test_each_retry_is_reported(player: Player) -> None:
    seen: list[tuple[str, int, float]] = []
    player.once(
        [MADE, WAKING, HELLO], made, fetched, on_retry=lambda error, n, delay: seen.append((error.code, n, delay))
    )
    assert seen == [("unavailable", 1, 2.0)]


def test_a_broken_post_is_not_sent_twice_and_a_broken_get_is(player: Player) -> None:
    with pytest.raises(ConnectionFailed):
        player.once([MADE, LOST, HELLO], made, lambda session: session.fetch(method="POST", content="x"))
    response, _ = player.once([MADE, LOST, HELLO], made, fetched)
    assert response.text == "hello"


def test_an_error_of_the_program_is_a_response_and_never_retried(player: Player) -> None:
    response, server = player.once([MADE, Answer(503, {"mine": True}, {"Retry-After": "1"})], made, fetched)
    assert (response.status_code, response.json(), len(server.asked)) == (503, {"mine": True}, 2)


def test_a_refusal_as_a_page_is_its_error_too(player: Player) -> None:
    page = Answer(404, "<h1>No session here</h1>", {"X-Preview-Error": "session_not_found"})
    with pytest.raises(SessionNotFound) as caught:
        player.once([MADE, page], made, lambda session: session.fetch(headers={"Accept": "text/html"}))
    assert caught.value.status == 404


def test_redirects_are_returned_and_cookies_are_not_kept(player: Player) -> None:
    moved = Answer(302, "", {"Location": "http://elsewhere.invalid/", "Set-Cookie": "a=1; Path=/"})
    session: Any = None

    def first(given: Any) -> Any:
        nonlocal session
        session = given
        return session.fetch()

    _, server = player.once([MADE, moved, HELLO], made, first, lambda response: response and session.fetch())
    assert "cookie" not in server.asked[2].headers


@pytest.mark.parametrize("port", [80, 1023, 65536, 0, -1])
def test_a_port_without_a_preview_is_refused_with_the_range(port: int) -> None:
    with Buntime(KEY, "http://127.0.0.1:9") as client:
        session = client.sessions.open("ses_1")
        for call in (session.fetch, session.preview_url):
            with pytest.raises(InvalidRequest, match=rf"1024 to 65535, not {port}") as caught:
                call(port=port)
            assert caught.value.details == {"field": "port", "least": 1024, "most": 65535}


@pytest.mark.parametrize("path", ["", "index.html", "http://elsewhere.invalid/", "@elsewhere.invalid"])
def test_a_path_without_a_slash_is_refused(path: str) -> None:
    with Buntime(KEY, "http://127.0.0.1:9") as client, pytest.raises(InvalidRequest):
        client.sessions.open("ses_1").fetch(path)


def visit(preview: str, path: str = "/", params: Mapping[str, Any] | None = None) -> Visit:
    return Visit(preview, 8080, path, "GET", params, {}, None, None, NEVER, stream=False)


@pytest.mark.parametrize(
    ("api", "preview", "target", "name"),
    [
        ("http://10.0.0.1:8000", "http://ses-1.localhost:8000", "http://10.0.0.1:8000/", None),
        ("https://p.test", "https://ses-1.p.test", "https://p.test/", "ses-1.p.test"),
        ("https://p.test:8443/api", "https://ses-1-3000.p.test", "https://p.test:8443/", "ses-1-3000.p.test"),
        ("http://127.0.0.1:8000", "https://ses-1.p.test", "http://127.0.0.1:8000/", None),
        ("https://proxy.test", "http://ses-1.localhost:8000", "https://proxy.test/", None),
    ],
)
def test_https_names_the_preview_in_the_handshake(api: str, preview: str, target: str, name: str | None) -> None:
    url, sni = visit(preview).through(api)
    assert (str(url), sni) == (target, name)


def test_a_path_cannot_change_the_host() -> None:
    url, _ = visit("http://ses-1.localhost:8000", "//elsewhere.invalid/x").through("http://127.0.0.1:8000")
    assert (url.host, url.path) == ("127.0.0.1", "//elsewhere.invalid/x")
