"""Data that must not pass from a client to a session, or from a session to the edge or to other sites."""

import pytest

from tests.edge.rig import FakeSession, Message, Rig

OURS = "bpt_1"
API_KEY = "btk_0123456789abcdefghijklmnopqrstuvABCDEF"


async def seen(rig: Rig, **headers: str) -> Message:
    """Sends a request with these headers. Returns what the session gets."""
    session = FakeSession()
    await rig.open_to(session)
    assert (await rig.get("/", None, "GET", b"", **headers)).status == 200
    return session.requests[0]


async def given(rig: Rig, fields: str) -> Message:
    """Lets a session answer with these header lines. Returns what the client gets."""
    await rig.open_to(
        FakeSession(lambda _: f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok".encode("latin-1"))
    )
    return await rig.get()


@pytest.mark.parametrize("said", [f"Bearer {API_KEY}", f"bearer  {API_KEY}", API_KEY, f"Basic x, Bearer {API_KEY}"])
async def test_an_api_key_does_not_reach_the_session(rig: Rig, said: str) -> None:
    assert (await seen(rig, Authorization=said)).header("Authorization") is None


async def test_a_key_next_to_another_authorization_does_not_reach_the_session(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    lines = f"GET / HTTP/1.1\r\nHost: {rig.host}\r\nConnection: close\r\nAuthorization: Basic eA==\r\n"
    await rig.send(f"{lines}Authorization: Bearer {API_KEY}\r\n\r\n".encode())
    assert not any("btk_" in value for request in session.requests for value in request.all("Authorization"))


async def test_a_second_authorization_is_refused_with_the_reason(rig: Rig) -> None:
    head = "GET /sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = await rig.send(f"{head}Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n".encode())
    assert answer is not None
    assert answer.status == 400
    assert b"Send headers such as Authorization once." in answer.body


async def test_an_authorization_for_the_program_itself_passes(rig: Rig) -> None:
    assert (await seen(rig, Authorization="Basic dXNlcjpwYXNz")).header("Authorization") == "Basic dXNlcjpwYXNz"


async def test_preview_tokens_do_not_reach_the_session(rig: Rig) -> None:
    request = await seen(rig, X_Preview_Token=OURS, Cookie="__buntime_preview=bpt_1")
    assert (request.header("X-Preview-Token"), request.header("Cookie")) == (None, None)


@pytest.mark.parametrize(
    ("sent", "reaches"),
    [
        ("a=1; b=2", "a=1; b=2"),
        ("a=1; __buntime_preview=x; b=2", "a=1; b=2"),
        ("__buntime_preview=x;a=1; __buntime_preview=y", "a=1"),
        ("__buntime_preview =x; a=1", "a=1"),
        ("__buntime_preview2=x; a=__buntime_preview", "__buntime_preview2=x; a=__buntime_preview"),
    ],
)
async def test_the_preview_cookie_is_removed_from_the_other_cookies(rig: Rig, sent: str, reaches: str) -> None:
    assert (await seen(rig, Cookie=sent)).header("Cookie") == reaches


async def test_the_preview_cookie_is_found_in_every_cookie_header(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    lines = f"GET / HTTP/1.1\r\nHost: {rig.host}\r\nConnection: close\r\nCookie: a=1\r\n"
    await rig.send(f"{lines}Cookie: __buntime_preview=bpt_1\r\n\r\n".encode())
    assert session.requests[0].all("Cookie") == ["a=1"]
    assert rig.asked()[0].header("X-Preview-Cookie") == "bpt_1"


async def test_an_address_with_a_token_does_not_reach_the_session(rig: Rig) -> None:
    page = f"http://{rig.host}/p?a=1&buntime_token={OURS}"
    request = await seen(rig, Referer=page, Ping_From=page)
    assert (request.header("Referer"), request.header("Ping-From")) == (None, None)
    assert OURS not in str(request.fields)


@pytest.mark.parametrize("said", ["http://a.example/p?q=buntime_tokens", "http://a.example/", "", "no address"])
async def test_another_referer_passes(rig: Rig, said: str) -> None:
    assert (await seen(rig, Referer=said)).header("Referer") == (said or None)


async def test_forwarded_headers_from_the_client_are_overwritten(rig: Rig) -> None:
    claims = {"X_Forwarded_For": "6.6.6.6", "X_Real_IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    more = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "bank.example", "X_Forwarded_Server": "x"}
    request = await seen(rig, **claims, **more, X_Forwarded_Prefix="/x", X_Forwarded_Port="1")
    assert request.all("X-Forwarded-For") == ["127.0.0.1"]
    assert (request.header("X-Real-IP"), request.header("X-Forwarded-Proto")) == ("127.0.0.1", "http")
    assert request.header("X-Forwarded-Host") == rig.host
    for name in ("Forwarded", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Port"):
        assert request.header(name) is None


async def test_headers_that_programs_may_confuse_with_others_are_dropped(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    head = f"GET / HTTP/1.1\r\nHost: {rig.host}\r\nConnection: close\r\nX_Forwarded_For: 6.6.6.6\r\n"
    await rig.send(f"{head}X_Preview_Token: bpt_1\r\n\r\n".encode())
    assert {"6.6.6.6", "bpt_1"}.isdisjoint(value for _, value in session.requests[0].fields)


async def test_only_upgrades_to_websocket_are_requested(rig: Rig) -> None:
    request = await seen(rig, Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__")
    assert (request.header("Upgrade"), request.header("Connection")) == (None, None)


@pytest.mark.parametrize("name", ["Redirect", "Expires", "Limit-Rate", "Buffering", "Charset"])
async def test_instructions_of_a_session_to_nginx_are_ignored_and_hidden(rig: Rig, name: str) -> None:
    answer = await given(rig, f"X-Accel-{name}: /.refusal/500\r\nX-Seen: yes\r\n")
    assert (answer.status, answer.body, answer.header("X-Seen")) == (200, b"ok", "yes")
    assert answer.header(f"X-Accel-{name}") is None


@pytest.mark.parametrize(
    ("set_cookie", "reaches"),
    [
        ("a=1; Path=/; HttpOnly", "a=1; Path=/; HttpOnly"),
        ("a=1; Domain=localhost; Path=/", "a=1; Path=/"),
        ("a=1;domain=.localhost", "a=1"),
        ("a=1; DOMAIN\t = localhost; Secure", "a=1; Secure"),
        ("a=1; Domain=x; Domain=localhost", "a=1"),
        ("a=1;;domain=x;", "a=1;;"),
        ("a=1; Domain; Path=/", "a=1; Path=/"),
        ("a=1; Domain=", "a=1"),
        ("a=1;\tdomain\t=\tlocalhost\t; Secure", "a=1; Secure"),
        ("a=1;\x0bDomain=localhost", "a=1"),
        ("a=1;\xa0Domain\xa0=localhost", "a=1"),
        ("a=1; $Domain=localhost", "a=1"),
        ("a=1; Subdomain=x; Domains=y", "a=1; Subdomain=x; Domains=y"),
        ('a=1; Comment="x;Domain=localhost"', 'a=1; Comment="x'),
        ("domain=1; Path=/", "domain=1; Path=/"),
        (" Domain = 1; Path=/", "Domain = 1; Path=/"),
        ('v="a;b"; Path=/', 'v="a;b"; Path=/'),
        ('v="a;Domains=b;c"; Path=/', 'v="a;Domains=b;c"; Path=/'),
        ('v="a"; Domain=localhost', 'v="a"'),
        ('v="a\\"b"; Domain=localhost; Path=/', 'v="a\\"b"; Path=/'),
        ('v="a;Domain=localhost"', None),
        ('v="a;Domain=localhost;x="', None),
        ('v="a; domain\t=localhost; Path=/', None),
        ('v="a;b"; Domain=localhost', None),
        ('v="a\\";Domain=localhost;x="', None),
        ("v=1 Domain=localhost", None),
        ("v=1\t$Domain = localhost", None),
        ("next=/?a=1&domain=2", "next=/?a=1&domain=2"),
        ("__buntime_preview2=1", "__buntime_preview2=1"),
        ("__buntime_preview=x; Path=/", None),
        ("  __buntime_preview = x", None),
        ("__Buntime_Preview=x", None),
        ("=__buntime_preview=x", None),
        ("__buntime_preview", None),
        ("__buntime_preview; Path=/", None),
    ],
)
async def test_a_session_sets_cookies_only_for_its_own_host_and_never_the_preview_cookie(
    rig: Rig, set_cookie: str, reaches: str | None
) -> None:
    answer = await given(rig, f"Set-Cookie: first=1\r\nSet-Cookie: {set_cookie}\r\nSet-Cookie: last=1\r\n")
    assert answer.all("Set-Cookie") == ["first=1", *([] if reaches is None else [reaches]), "last=1"]


async def test_a_session_cannot_clear_the_browsers_data_of_other_sites(rig: Rig) -> None:
    assert (await given(rig, 'Clear-Site-Data: "cookies"\r\n')).header("Clear-Site-Data") is None


async def test_the_edge_reserves_no_path_of_a_preview(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    for path in ("/.refusal/500", "/admit", "/nothing", "/@refused", "/files/content"):
        assert (await rig.get(path)).body == b"ok"
    assert len(session.requests) == 5
