"""Who may see which port of a session, and what others get, from the edge's point of view."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from html import escape
from urllib.parse import urlsplit

import pytest

from buntime.account import AccountStatus
from buntime.errors import Unavailable
from buntime.lifecycle import leases
from buntime.operations import preview_tokens, previews, visitors
from buntime.operations.previews import Reason
from buntime.plan import LONGEST_SECONDS
from buntime.ports import Sandbox
from buntime.session import State
from buntime.web.accept import prefers_page
from buntime.web.visitor_pages import PAGES, render
from tests.app.serving import Answer, Api, serving
from tests.ports import free_port
from tests.waiting import eventually

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
BROWSER = {"Accept": HTML}


def host_of(session: str, port: int = 8080) -> str:
    return session.replace("_", "-") + ("" if port == 8080 else f"-{port}") + ".localhost:8000"


async def token_for(api: Api, session: str, **asked: object) -> str:
    made = await api.call("POST", f"/sessions/{session}/preview-token", asked)
    assert made.status == 200, made.body
    token: str = made.json["token"]
    return token


async def private_session(api: Api) -> str:
    return await api.session(preview={"visibility": "private", "ports": []})


@asynccontextmanager
async def listening(port: int = 0) -> AsyncIterator[int]:
    """Listens on a free port. A fake sandbox uses the host's ports, so this is a program of the session."""

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "SPENT_SECONDS", 0.01)


# --- admission ---


async def test_anyone_can_open_a_public_port(api: Api) -> None:
    admitted = await api.ask(host_of(await api.session()), "/a?b=1")
    assert (admitted.status, admitted.body) == (200, b"")
    assert admitted.headers["X-Upstream"] == "127.0.0.1:8080"
    assert admitted.headers["X-Cache"] == "1"
    assert "X-Uri" not in admitted.headers


async def test_another_open_port_is_reached_by_its_host_name(api: Api) -> None:
    session = await api.session(preview={"visibility": "public", "ports": [3000]})
    assert (await api.ask(host_of(session, 3000))).headers["X-Upstream"] == "127.0.0.1:3000"
    assert (await api.ask(host_of(session, 8080))).refusal == (401, "unauthorized")


async def test_unknown_expired_deleted_and_mistyped_hosts_get_the_same_answer(api: Api) -> None:
    session = await api.session()
    deleted, expired = await api.session(), await api.session(ttl=300)
    await api.call("DELETE", f"/sessions/{deleted}")
    stored = await api.store.get_session(expired)
    assert stored is not None
    await api.store.change_session(stored, replace(stored, expires_at=int(api.clock.now)))
    hosts = [host_of(deleted), host_of(expired), host_of("ses_" + "x" * 18), "ses-typo.localhost", host_of(session, 80)]
    pages = [await api.ask(host, **BROWSER) for host in [*hosts, host_of(session).replace("localhost", "example.com")]]
    assert {page.status for page in pages} == {404}
    assert len({page.body for page in pages}) == 1
    assert {(await api.ask(host)).refusal for host in hosts} == {(404, "session_not_found")}


async def test_previews_of_a_suspended_account_are_closed_and_those_of_a_deleted_account_gone(api: Api) -> None:
    session = await api.session()
    (account,) = await api.store.list_accounts()
    await api.store.set_account_status(account.id, AccountStatus.SUSPENDED)
    assert (await api.ask(host_of(session))).refusal == (403, "forbidden")
    await api.store.set_account_status(account.id, AccountStatus.DELETED)
    assert (await api.ask(host_of(session))).refusal == (404, "session_not_found")


@pytest.mark.parametrize("way", ["token", "cookie"])
async def test_a_private_port_opens_with_a_token_in_the_header_or_the_cookie(api: Api, way: str) -> None:
    session = await private_session(api)
    token = await token_for(api, session)
    assert (await api.ask(host_of(session))).refusal == (401, "unauthorized")
    assert (await api.ask(host_of(session), **{way: token})).status == 200
    assert (await api.ask(host_of(session), **{way: token[:-1]})).status == 401
    assert (await api.ask(host_of(session), **{way: "x" * 5000})).status == 401


async def test_a_browser_with_a_token_is_redirected_without_it_and_keeps_it_as_a_cookie(api: Api) -> None:
    session = await private_session(api)
    token = await token_for(api, session)
    sent = await api.ask(host_of(session), f"/a?x=1&buntime_token={token}&y=%2F", **BROWSER)
    assert sent.status == 302
    assert sent.headers["Location"] == f"http://{host_of(session)}/a?x=1&y=%2F"
    assert sent.headers["Set-Cookie"] == f"__buntime_preview={token}; Path=/; HttpOnly; SameSite=Lax"
    assert sent.headers["Cache-Control"] == "no-store"
    assert sent.headers["Referrer-Policy"] == "no-referrer"


async def test_a_redirect_never_leads_to_another_host(api: Api) -> None:
    session = await private_session(api)
    token = await token_for(api, session)
    sent = await api.ask(host_of(session), f"//example.com/?buntime_token={token}", **BROWSER)
    assert urlsplit(sent.headers["Location"]).netloc == host_of(session)


async def test_with_a_domain_the_cookie_is_secure() -> None:
    async with serving(domain="example.com") as api:
        session = await private_session(api)
        token = await token_for(api, session)
        host = host_of(session).replace("localhost:8000", "example.com")
        sent = await api.ask(host, f"/?buntime_token={token}", **BROWSER)
        assert sent.headers["Location"] == f"https://{host}/"
        assert sent.headers["Set-Cookie"].endswith("; SameSite=Lax; Secure")
        assert (await api.ask(host_of(session), f"/?buntime_token={token}", **BROWSER)).status == 404


@pytest.mark.parametrize("said", [{"method": "POST", **BROWSER}, {"Accept": "*/*"}, {"upgrade": "1", **BROWSER}, {}])
async def test_other_clients_with_a_token_in_the_query_are_admitted_without_a_redirect(
    api: Api, said: dict[str, str]
) -> None:
    session = await private_session(api)
    token = await token_for(api, session)
    admitted = await api.ask(host_of(session), f"/a?buntime_token={token}&b=1", **said)
    assert (admitted.status, admitted.headers["X-Uri"]) == (200, "/a?b=1")


async def test_a_token_in_the_query_never_reaches_a_session(api: Api) -> None:
    public = await api.session()
    private = await private_session(api)
    token = await token_for(api, private)
    assert (await api.ask(host_of(public), "/?buntime_token=old")).headers["X-Uri"] == "/"
    assert (await api.ask(host_of(private), "/?buntime_token=old", cookie=token)).headers["X-Uri"] == "/"


async def test_a_token_is_valid_for_its_session_port_and_time(api: Api) -> None:
    session, other = await private_session(api), await private_session(api)
    token = await token_for(api, session, port=3000, ttl=60)
    assert (await api.ask(host_of(session, 3000), token=token)).status == 200
    assert (await api.ask(host_of(session, 8080), token=token)).status == 401
    assert (await api.ask(host_of(other, 3000), token=token)).status == 401
    api.clock.now += 60
    assert (await api.ask(host_of(session, 3000), token=token)).status == 401


# --- tokens ---


async def test_a_token_has_a_link_that_opens_its_port(api: Api) -> None:
    session = await private_session(api)
    made = (await api.call("POST", f"/sessions/{session}/preview-token", {"port": 3000, "ttl": 600})).json
    assert re.fullmatch("bpt_[0-9A-Za-z]{32}", made["token"])
    assert made["expiresAt"] == "2024-01-19T10:40:00Z"
    link = urlsplit(made["url"])
    assert link.netloc == host_of(session, 3000)
    sent = await api.ask(link.netloc, f"{link.path}?{link.query}", **BROWSER)
    assert sent.status == 302


async def test_a_token_lasts_an_hour_and_never_longer_than_its_session(api: Api) -> None:
    session = await api.session(ttl=7200)
    made = await api.call("POST", f"/sessions/{session}/preview-token")
    assert made.json["expiresAt"] == "2024-01-19T11:30:00Z"
    long = await api.call("POST", f"/sessions/{session}/preview-token", {"ttl": LONGEST_SECONDS})
    assert long.json["expiresAt"] == "2024-01-19T12:30:00Z"


ASKED: list[dict[str, object]] = [{"port": 1023}, {"port": 65536}, {"ttl": 59}, {"ttl": "60"}, {"other": 1}]


@pytest.mark.parametrize("ttl", [LONGEST_SECONDS + 1, (1 << 63) - 1])
async def test_a_ttl_that_no_clock_holds_is_refused_for_a_session_without_an_end(ttl: int) -> None:
    async with serving() as api:
        api.key = await api.account(name="endless", longest_ttl="never")
        path = f"/sessions/{await api.session(ttl='never')}/preview-token"
        refused = await api.call("POST", path, {"ttl": ttl})
        assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "ttl")
        assert (await api.call("POST", path, {"ttl": LONGEST_SECONDS})).status == 200


@pytest.mark.parametrize("asked", ASKED)
async def test_a_refused_token_request_names_the_wrong_field(api: Api, asked: dict[str, object]) -> None:
    refused = await api.call("POST", f"/sessions/{await api.session()}/preview-token", asked)
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"]["field"] in asked


async def test_tokens_of_another_accounts_session_cannot_be_made_or_revoked(api: Api) -> None:
    session, other = await private_session(api), await api.account(name="two")
    token = await token_for(api, session)
    for method in ("POST", "DELETE"):
        refused = await api.call(method, f"/sessions/{session}/preview-token", key=other)
        assert refused.refusal == (404, "session_not_found")
    assert (await api.ask(host_of(session), token=token)).status == 200


async def test_the_number_of_valid_tokens_of_a_session_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_tokens, "TOKENS", 2)
    session = await api.session()
    for _ in range(2):
        await token_for(api, session, ttl=60)
    refused = await api.call("POST", f"/sessions/{session}/preview-token")
    assert refused.refusal == (409, "invalid_state")
    assert refused.error["details"] == {"limit": 2}
    api.clock.now += 60
    await token_for(api, session)


async def test_the_store_does_not_hold_a_token_in_clear_text(api: Api) -> None:
    session = await private_session(api)
    path = f"/sessions/{session}/preview-token"
    made = await api.call("POST", path, Idempotency_Key="k")
    again = await api.call("POST", path, Idempotency_Key="k")
    assert again.body == made.body
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(api.store.tokens) == 1
    (kept,) = api.store.answers.values()
    assert made.json["token"].encode() not in kept.body
    assert made.json["token"] not in repr(api.store.tokens)
    assert (await api.call("POST", path, {"ttl": 60}, Idempotency_Key="k")).status == 422


async def test_a_refused_token_request_is_replayed_for_its_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_tokens, "TOKENS", 0)
    path = f"/sessions/{await api.session()}/preview-token"
    first, again = [await api.call("POST", path, Idempotency_Key="k") for _ in range(2)]
    assert first.body == again.body
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.usefixtures("soon")
async def test_one_token_or_all_are_revoked(api: Api) -> None:
    session = await private_session(api)
    one, two, three = [await token_for(api, session) for _ in range(3)]
    path = f"/sessions/{session}/preview-token"
    assert (await api.call("DELETE", path, {"token": one})).json == {"revoked": 1}
    assert [(await api.ask(host_of(session), token=token)).status for token in (one, two)] == [401, 200]
    assert (await api.call("DELETE", path, {"token": one})).json == {"revoked": 0}
    assert (await api.call("DELETE", path)).json == {"revoked": 2}
    assert [(await api.ask(host_of(session), token=token)).status for token in (two, three)] == [401, 401]


async def test_the_keeper_drops_expired_tokens(api: Api) -> None:
    session = await api.session()
    await token_for(api, session, ttl=60)
    await token_for(api, session, ttl=3600)
    api.clock.now += 60
    await api.keep(api.keeper())
    await eventually(lambda: len(api.store.tokens) == 1)


# --- ends of open connections ---


async def ends_connections_twice(api: Api, change: Awaitable[Answer]) -> bool:
    """Tells whether connections end at once. Waits until they end again, when earlier permissions have expired."""
    (sandbox,) = api.sandboxes.running.values()
    assert api.sandboxes.disconnected == []
    assert (await change).status == 200
    at_once = api.sandboxes.disconnected[:1] == [sandbox.id]
    await eventually(lambda: len(api.sandboxes.disconnected) > 1)
    return at_once and set(api.sandboxes.disconnected) == {sandbox.id}


@pytest.mark.usefixtures("soon")
async def test_revoking_a_token_ends_connections(api: Api) -> None:
    session = await private_session(api)
    token = await token_for(api, session)
    path = f"/sessions/{session}/preview-token"
    assert await ends_connections_twice(api, api.call("DELETE", path, {"token": token}))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("preview", [{"visibility": "private"}, {"ports": [3000]}])
async def test_closing_a_port_ends_connections(api: Api, preview: dict[str, object]) -> None:
    session = await api.session(preview={"ports": [8080, 3000]})
    assert await ends_connections_twice(api, api.call("PATCH", f"/sessions/{session}", {"preview": preview}))


@pytest.mark.parametrize("patch", [{"preview": {"ports": [8080, 3000]}}, {"metadata": {"a": 1}}])
async def test_opening_a_port_and_other_changes_leave_connections_alone(api: Api, patch: dict[str, object]) -> None:
    session = await api.session()
    await api.call("PATCH", f"/sessions/{session}", patch)
    assert api.sandboxes.disconnected == []


async def test_a_delete_ends_connections(api: Api) -> None:
    session = await api.session()
    (sandbox,) = api.sandboxes.running.values()
    await api.call("DELETE", f"/sessions/{session}")
    assert api.sandboxes.disconnected == [sandbox.id]


@pytest.mark.usefixtures("soon")
async def test_a_permission_withdrawn_during_the_wait_is_not_granted(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    (sandbox,) = api.sandboxes.running.values()
    thaw, waking, going = sandbox.thaw, asyncio.Event(), asyncio.Event()

    async def slow_thaw() -> None:
        waking.set()
        await going.wait()
        await thaw()

    sandbox.thaw = slow_thaw  # type: ignore[method-assign]
    asked = asyncio.create_task(api.ask(host_of(session)))
    await waking.wait()
    await api.call("PATCH", f"/sessions/{session}", {"preview": {"visibility": "private"}})
    going.set()
    assert (await asked).status == 401


# --- renewing ---


async def test_permissions_in_use_are_renewed_together(api: Api) -> None:
    public, private = await api.session(), await private_session(api)
    token = await token_for(api, private, port=3000)
    admitted = [
        (await api.ask(host, token=secret)).headers["X-Upstream"]
        for host, secret in ((host_of(public), ""), (host_of(private, 3000), token))
    ]
    renewed = await api.renew((host_of(public), ""), (host_of(private, 3000), token), (host_of(private, 3000), ""))
    assert renewed == [*admitted, ""]


async def test_a_renewal_lends_the_session_again_and_is_activity(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    monkeypatch.setattr(previews, "LENT_SECONDS", 60.0)
    api.clock.now += 10
    assert await api.renew((host_of(session), "")) != [""]
    stored = await api.store.get_session(session)
    assert stored is not None
    assert stored.last_active == int(api.clock.now)
    await asyncio.sleep(1.3)
    assert not await api.lifecycle.transitions.suspend(session)


async def test_a_permission_that_is_over_is_not_renewed(api: Api) -> None:
    session = await api.session()
    assert await api.renew((host_of(session), "")) == [""]
    await api.ask(host_of(session))
    await api.lifecycle.holds.spent(session)
    assert await api.renew((host_of(session), "")) == [""]


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_renewal_wakes_nothing(api: Api, depth: str) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
    before = await api.store.get_session(session)
    api.clock.now += 10
    assert await api.renew((host_of(session), "")) == [""]
    assert await api.store.get_session(session) == before


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_session_that_is_asked_to_sleep_is_not_lent_again(api: Api, depth: str) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    async with asyncio.TaskGroup() as tasks:
        slept = tasks.create_task(api.call("POST", f"/sessions/{session}/sleep", {"depth": depth}))
        while not slept.done():
            await api.renew((host_of(session), ""))
            await asyncio.sleep(0.05)
    assert slept.result().status == 200


async def test_a_session_that_is_going_to_sleep_is_not_lent_again(api: Api) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    async with api.lifecycle.holds.lock(session):
        assert await api.renew((host_of(session), "")) == [""]


@pytest.mark.parametrize("how", ["revoke", "close", "delete", "suspend"])
async def test_a_withdrawn_permission_is_not_renewed(api: Api, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(previews, "LENT_SECONDS", 60.0)
    session = await api.session() if how == "close" else await private_session(api)
    token = await token_for(api, session) if how != "close" else ""
    host = host_of(session)
    assert (await api.ask(host, token=token)).status == 200
    assert await api.renew((host, token)) != [""]
    match how:
        case "revoke":
            assert (await api.call("DELETE", f"/sessions/{session}/preview-token")).status == 200
        case "close":
            closed = {"preview": {"visibility": "private", "ports": []}}
            assert (await api.call("PATCH", f"/sessions/{session}", closed)).status == 200
        case "delete":
            assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
        case _:
            (account,) = await api.store.list_accounts()
            await api.store.set_account_status(account.id, AccountStatus.SUSPENDED)
    assert await api.renew((host, token)) == [""]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_host_that_may_not_act_or_lost_the_session_renews_nothing(api: Api, lost: bool) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    if lost:
        api.owners.lost.add(session)
    else:
        api.owners.acts = False
    assert await api.renew((host_of(session), "")) == [""]


async def test_the_port_of_a_service_is_asked_about_each_time(api: Api) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    assert await api.renew((host_of(session), "")) != [""]
    service = {"name": "web", "command": "sleep 1", "port": 8080, "restart": "never"}
    assert (await api.call("PATCH", f"/sessions/{session}", {"services": [service]})).status == 200
    assert await api.renew((host_of(session), "")) == [""]


async def test_a_failure_ends_one_permission_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await api.session(), await api.session()
    for session in (one, two):
        await api.ask(host_of(session))
    lend_again = api.lifecycle.leases.lend_again

    async def fails(session_id: str, seconds: float) -> Sandbox | None:
        if session_id == one:
            raise ZeroDivisionError
        return await lend_again(session_id, seconds)

    monkeypatch.setattr(api.lifecycle.leases, "lend_again", fails)
    # the failing one comes last: to log a failure may take longer than a permission lasts
    second, first = await api.renew((host_of(two), ""), (host_of(one), ""))
    assert (first, second != "") == ("", True)


async def test_a_renewal_of_what_is_no_preview_is_empty(api: Api) -> None:
    assert await api.renew(("", ""), ("example.com", ""), (host_of("ses_" + "a" * 18), "")) == [""] * 3


# --- waking ---


async def state_of(api: Api, session: str) -> State:
    stored = await api.store.get_session(session)
    assert stored is not None
    return stored.state


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_visitor_wakes_the_session(api: Api, depth: str) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
    assert (await api.ask(host_of(session))).status == 200
    assert await state_of(api, session) is State.ACTIVE


async def test_a_refused_visitor_wakes_nothing_and_is_no_activity(api: Api) -> None:
    session = await private_session(api)
    await api.call("POST", f"/sessions/{session}/sleep")
    before = await api.store.get_session(session)
    api.clock.now += 10
    assert (await api.ask(host_of(session), **BROWSER)).status == 401
    assert await api.store.get_session(session) == before


async def test_a_visitor_is_activity(api: Api) -> None:
    session = await api.session()
    api.clock.now += 10
    await api.ask(host_of(session))
    stored = await api.store.get_session(session)
    assert stored is not None
    assert stored.last_active == int(api.clock.now)


async def test_simultaneous_visitors_share_one_wake(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    start, starts = api.sandboxes.start, 0

    async def counted(*args: object) -> Sandbox:
        nonlocal starts
        starts += 1
        await asyncio.sleep(0.01)
        return await start(*args)  # type: ignore[arg-type]

    api.sandboxes.start = counted  # type: ignore[method-assign, assignment]
    answers = await asyncio.gather(*(api.ask(host_of(session), f"/{n}") for n in range(50)))
    assert [answer.status for answer in answers] == [200] * 50
    assert starts == 1


async def test_a_session_is_not_suspended_while_a_permission_may_be_used(api: Api) -> None:
    session = await api.session()
    await api.ask(host_of(session))
    assert not await api.lifecycle.transitions.suspend(session)
    assert not await api.lifecycle.transitions.deep_sleep(session)
    await api.lifecycle.holds.spent(session)
    assert await api.lifecycle.transitions.suspend(session)


async def test_a_request_for_sleep_waits_until_permissions_are_spent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "LENT_SECONDS", 0.05)
    session = await api.session()
    await api.ask(host_of(session))
    assert (await api.call("POST", f"/sessions/{session}/sleep")).json["state"] == "idle"


async def test_a_slow_wake_is_a_page_that_reloads_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WAKE_SECONDS", 0.02)
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    (sandbox,) = api.sandboxes.running.values()
    thaw, going = sandbox.thaw, asyncio.Event()

    async def slow_thaw() -> None:
        await going.wait()
        await thaw()

    sandbox.thaw = slow_thaw  # type: ignore[method-assign]
    page = await api.ask(host_of(session), **BROWSER)
    assert page.status == 503
    assert page.headers["Retry-After"] == "1"
    assert b'http-equiv="refresh" content="1"' in page.body
    assert (await api.ask(host_of(session))).refusal == (503, "unavailable")
    going.set()
    await eventually(lambda: not sandbox.frozen)
    assert (await api.ask(host_of(session), **BROWSER)).status == 200


async def test_a_full_host_and_a_lost_session_have_pages_of_their_own(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})

    async def no_room(*args: object) -> Sandbox:
        raise Unavailable("This host has no memory free for another session.", 7)

    real, api.sandboxes.start = api.sandboxes.start, no_room  # type: ignore[method-assign, assignment]
    page = await api.ask(host_of(session), **BROWSER)
    assert (page.status, page.headers["Retry-After"]) == (503, "7")
    assert (await api.ask(host_of(session))).refusal == (503, "unavailable")

    async def broken(*args: object) -> Sandbox:
        raise RuntimeError("a fault of ours")

    api.sandboxes.start = broken  # type: ignore[method-assign, assignment]
    assert (await api.ask(host_of(session))).refusal == (500, "internal_error")
    assert b"fault" not in (await api.ask(host_of(session), **BROWSER)).body

    api.sandboxes.start = real  # type: ignore[method-assign]
    api.archive.objects.clear()
    (volume,) = api.sandboxes.volumes
    del api.sandboxes.volumes[volume]
    assert (await api.ask(host_of(session))).refusal == (409, "invalid_state")


async def test_the_number_of_requests_that_wait_for_one_session_is_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MOST_WAITING", 1)
    session, other = await api.session(), await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    sandbox = next(s for s in api.sandboxes.running.values() if s.frozen)
    thaw, waking, going = sandbox.thaw, asyncio.Event(), asyncio.Event()

    async def slow_thaw() -> None:
        waking.set()
        await going.wait()
        await thaw()

    sandbox.thaw = slow_thaw  # type: ignore[method-assign]
    first = asyncio.create_task(api.ask(host_of(session)))
    await waking.wait()
    refused = await api.ask(host_of(session), **BROWSER)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert (await api.ask(host_of(other))).status == 200
    going.set()
    assert (await first).status == 200
    assert (await api.ask(host_of(session))).status == 200


# --- onWake ---


async def asleep(api: Api, port: int, **fields: object) -> str:
    """Returns a session in deep sleep with an open port."""
    session = await api.session(preview={"ports": [port]}, **fields)
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    return session


async def test_visitors_wait_until_what_on_wake_starts_listens(api: Api) -> None:
    port = free_port()
    session = await asleep(api, port, onWake="serve")
    asked = [asyncio.create_task(api.ask(host_of(session, port), f"/{n}")) for n in range(3)]
    await eventually(lambda: api.sandboxes.running)
    late = asyncio.create_task(api.ask(host_of(session, port)))
    done, _ = await asyncio.wait([*asked, late], timeout=0.1)
    assert not done
    async with listening(port):
        assert [answer.status for answer in await asyncio.gather(*asked, late)] == [200] * 4


async def test_visitors_also_wait_when_an_api_request_woke_the_session(api: Api) -> None:
    port = free_port()
    session = await asleep(api, port, onWake="serve")
    await api.call("POST", f"/sessions/{session}/wake")
    asked = asyncio.create_task(api.ask(host_of(session, port)))
    done, _ = await asyncio.wait([asked], timeout=0.1)
    assert not done
    async with listening(port):
        assert (await asked).status == 200


async def test_a_port_that_was_seen_to_listen_is_not_looked_at_again(api: Api) -> None:
    async with listening() as port:
        session = await asleep(api, port, onWake="serve")
        assert (await api.ask(host_of(session, port))).status == 200
    assert (await api.ask(host_of(session, port))).status == 200


async def test_visitors_do_not_wait_after_a_mere_suspension(api: Api) -> None:
    port = free_port()
    session = await api.session(preview={"ports": [port]}, onWake="serve")
    await api.call("POST", f"/sessions/{session}/sleep")
    assert (await api.ask(host_of(session, port))).status == 200


async def test_the_page_names_the_log_when_on_wake_does_not_start_the_server_in_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "ON_WAKE_SECONDS", 0.05)
    port = free_port()
    session = await asleep(api, port, onWake="serve")
    starting = await api.ask(host_of(session, port), **BROWSER)
    assert starting.status == 503
    assert b'http-equiv="refresh"' in starting.body
    assert b"/var/log/on-wake.log" in starting.body
    await asyncio.sleep(0.05)
    assert (await api.ask(host_of(session, port))).status == 200, "after that, the edge sees it when it connects"
    monkeypatch.setattr(previews, "STARTING_SECONDS", 0.05)
    failed = await api.ask(host_of(session, port), path="/nothing", **BROWSER)
    assert failed.status == 502
    assert b"/var/log/on-wake.log" in failed.body
    assert b"refresh" not in failed.body


# --- nothing listens ---


async def test_the_page_for_a_silent_port_says_how_to_listen_on_it(api: Api) -> None:
    port = free_port()
    session = await api.session(preview={"ports": [port]})
    page = await api.ask(host_of(session, port), path="/nothing", **BROWSER)
    assert page.status == 502
    assert f"port: {port}".encode() in page.body
    assert b"Bun.serve" in page.body
    assert b"deep sleep" not in page.body
    told = await api.ask(host_of(session, port), path="/nothing")
    assert told.refusal == (502, "unavailable")
    assert str(port) in told.error["message"]
    assert [told.headers["x-preview-error"], page.headers["x-preview-error"]] == ["unavailable"] * 2


async def test_the_page_says_that_deep_sleep_ended_the_server(api: Api) -> None:
    port = free_port()
    session = await asleep(api, port)
    assert (await api.ask(host_of(session, port))).status == 200
    page = await api.ask(host_of(session, port), path="/nothing", **BROWSER)
    assert page.status == 502
    assert b"deep sleep ended this session" in page.body
    assert b"onWake" in page.body


async def test_a_server_that_came_up_meanwhile_gets_another_try(api: Api) -> None:
    async with listening() as port:
        session = await api.session(preview={"ports": [port]})
        page = await api.ask(host_of(session, port), path="/nothing", **BROWSER)
        assert (page.status, page.headers["Retry-After"]) == (503, "1")
        assert b'http-equiv="refresh"' in page.body


async def test_a_visitor_who_is_not_admitted_learns_nothing_about_the_session(api: Api) -> None:
    session = await private_session(api)
    assert (await api.ask(host_of(session), path="/nothing")).status == 401
    assert (await api.ask(host_of("ses_" + "x" * 18), path="/nothing")).status == 404


# --- pages ---


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (HTML, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.5", True),
        ("application/json;q=0.4, text/html;q=0.5", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
    ],
)
def test_a_client_that_prefers_html_gets_a_page(accept: str, page: bool) -> None:
    assert prefers_page(accept) is page


async def test_a_page_is_not_cached_and_loads_nothing(api: Api) -> None:
    page = await api.ask("ses-nobody.localhost", **BROWSER)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert int(page.headers["Content-Length"]) == len(page.body)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.SENT_ON])
def test_each_page_is_small_and_self_contained(reason: Reason) -> None:
    page = render(PAGES[reason], 65535, "request").decode()
    assert len(page) < 4096
    assert '<html lang="en">' in page
    (title,) = re.findall("<title>(.+)</title>", page)
    assert re.findall("<h1>(.+)</h1>", page) == [title]
    assert "prefers-color-scheme: dark" in page
    assert re.findall('<link[^>]*href="([^:]+):', page) == ["data"], "the icon"
    assert not re.search("<(script|img|iframe)|https?://|url\\(|\\$", page)
    assert ("refresh" in page) is (PAGES[reason].status == 503)
    assert ("Error 503" in page) is False, "a wait is no error"


@pytest.mark.parametrize("reason", [Reason.NOTHING, Reason.ENDED, Reason.NOT_STARTED, Reason.PRIVATE, Reason.UNKNOWN])
def test_a_page_speaks_to_visitors_before_it_speaks_to_the_owner(reason: Reason) -> None:
    page = render(PAGES[reason], 8080, "request").decode()
    assert 0 < page.find("Ask the person who sent you") < page.find("<p>For the owner: ")


@pytest.mark.parametrize("own", ["7f3a-1", "`<b>`&amp;$port", '"><script>'])
async def test_a_visitor_sees_the_id_of_a_failed_request_as_text(api: Api, own: str) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})

    async def broken(*args: object) -> Sandbox:
        raise RuntimeError("a fault of ours")

    api.sandboxes.start = broken  # type: ignore[method-assign, assignment]
    page = await api.ask(host_of(session), request_id=own, **BROWSER)
    assert (page.status, page.headers["X-Request-Id"]) == (500, own)
    assert f"<code>{escape(own)}</code>".encode() in page.body


async def test_no_page_repeats_the_visitors_text(api: Api) -> None:
    mark = "<b>mark</b>"
    page = await api.ask(f"ses-{mark}.localhost", f"/{mark}", method=mark, token=mark, cookie=mark, **BROWSER)
    assert page.status == 404
    assert b"mark" not in page.body
