"""What a host does with requests for sessions of other hosts, and while it may not act."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from buntime.ports import AnotherHost, Peer
from buntime.requests import Patch
from buntime.session import Session, State
from tests.app.serving import Api
from tests.app.sleeping import deep_sleep, stored_of
from tests.waiting import eventually

PEER = Peer("hst_other", "192.0.2.7:8443")
USES: list[tuple[str, str, dict[str, object] | None]] = [
    ("POST", "/execute", {"code": "1"}),
    ("POST", "/files/write", {"path": "/workspace/a", "content": "a"}),
    ("POST", "/sessions/{}/sleep", {"depth": "idle"}),
    ("POST", "/sessions/{}/wake", None),
    ("POST", "/sessions/{}/snapshots", {}),
    ("POST", "/sessions/{}/fork", {"count": 1}),
    ("PATCH", "/sessions/{}", {"metadata": {"a": "b"}}),
    ("DELETE", "/sessions/{}", None),
]

CHANGES = [
    *USES[2:],
    ("POST", "/sessions/{}/sleep", {"depth": "deep-sleep"}),
    ("POST", "/sessions/{}/restore", {"snapshotId": "SNAPSHOT"}),
    ("POST", "/images/create", {"name": "made"}),
    ("POST", "/sessions/{}/recover", None),
]


async def ask(api: Api, session: str, method: str, path: str, body: dict[str, object] | None) -> tuple[int, str]:
    named = {"sessionId": session} if "{}" not in path else {}
    answer = await api.call(method, path.format(session), None if body is None else {**named, **body})
    if answer.status == 204:
        return 204, answer.headers.get("X-Accel-Redirect", "")
    return (answer.status, "") if answer.status == 200 else answer.refusal


@pytest.mark.parametrize(("method", "path", "body"), USES)
async def test_what_needs_the_sandbox_or_changes_the_session_is_its_owners(
    api: Api, method: str, path: str, body: dict[str, object] | None
) -> None:
    session = await api.session()
    touched = api.store.sessions[session]
    api.owners.elsewhere[session] = PEER
    assert await ask(api, session, method, path, body) == (204, "@peer")
    assert api.store.sessions[session] == touched, "no activity, no change"


@pytest.mark.parametrize(("method", "path", "body"), USES[:2])
async def test_a_session_that_goes_before_it_is_awake_is_used_where_it_is_then(
    api: Api, method: str, path: str, body: dict[str, object]
) -> None:
    session = await api.session()
    await deep_sleep(api, session)
    async with api.lifecycle.holds.lock(session):
        asked = asyncio.create_task(ask(api, session, method, path, body))
        await eventually(lambda: api.lifecycle.holds.in_use(session))
        await asyncio.sleep(0)
        api.owners.elsewhere[session] = PEER
    assert await asked == (204, "@peer")
    assert (await stored_of(api, session)).state is State.DEEP_SLEEP


def goes_after_the_first_look(api: Api, monkeypatch: pytest.MonkeyPatch, gives_up: Callable[[Session], None]) -> None:
    """Gives a session up as soon as a request has found it here."""
    is_mine, goes = api.owners.is_mine, [gives_up]

    def found(session: Session) -> bool:
        mine = is_mine(session)
        if goes:
            goes.pop()(session)
        return mine

    monkeypatch.setattr(api.owners, "is_mine", found)


async def filled(api: Api, session: str, body: dict[str, object] | None) -> dict[str, object] | None:
    if body is None or "snapshotId" not in body:
        return body
    return {"snapshotId": (await api.call("POST", f"/sessions/{session}/snapshots", {})).json["snapshotId"]}


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_a_session_that_goes_before_a_request_begins_is_changed_where_it_is_then(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, object] | None
) -> None:
    """Each host of a fleet drains at times, and no request fails for that."""
    session = await api.session()
    body = await filled(api, session, body)
    await deep_sleep(api, session)
    before = await stored_of(api, session)

    def moves(_: Session) -> None:
        api.owners.elsewhere[session] = PEER

    goes_after_the_first_look(api, monkeypatch, moves)
    assert await ask(api, session, method, path, body) == (204, "@peer")
    assert replace(await stored_of(api, session), last_active=before.last_active) == before


async def test_a_session_that_always_goes_is_unavailable(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await api.session()
    found = iter([True, False] * 3)
    monkeypatch.setattr(api.owners, "is_mine", lambda _: next(found))
    assert await ask(api, session, "PATCH", "/sessions/{}", {"metadata": {}}) == (503, "unavailable")


async def test_a_suspended_session_that_moves_while_it_is_woken_stays_frozen(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})
    sandbox = api.sandboxes.running[api.store.sessions[session].sandbox]
    thaw = sandbox.thaw

    async def moved() -> None:
        await thaw()
        api.owners.elsewhere[session] = PEER

    monkeypatch.setattr(sandbox, "thaw", moved)
    assert await ask(api, session, "POST", "/sessions/{}/wake", None) == (204, "@peer")
    assert sandbox.frozen


@pytest.mark.parametrize("moves", [True, False])
async def test_a_session_that_moves_while_it_is_suspended_stays_frozen(
    api: Api, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    """One whose host may only not act goes on."""
    session = await api.session()
    sandbox = api.sandboxes.running[api.store.sessions[session].sandbox]
    freeze = sandbox.freeze

    async def late() -> bool:
        frozen = await freeze()
        if moves:
            api.owners.elsewhere[session] = PEER
            api.store.sessions[session] = replace(api.store.sessions[session], host=PEER.id, epoch=2)
        api.owners.acts = moves
        return frozen

    monkeypatch.setattr(sandbox, "freeze", late)
    slept = await ask(api, session, "POST", "/sessions/{}/sleep", {"depth": "idle"})
    assert slept == ((204, "@peer") if moves else (503, "unavailable"))
    assert sandbox.frozen is moves


async def test_a_start_asks_for_no_session_that_is_as_it_should_be(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have tens of thousands that sleep."""
    session = await api.session()
    await deep_sleep(api, session)
    asked = list[str]()
    get = api.store.get_session

    async def noted(session_id: str) -> object:
        asked.append(session_id)
        return await get(session_id)

    await api.lifecycle.archiving.archive(session)
    monkeypatch.setattr(api.store, "get_session", noted)
    await api.lifecycle.transitions.settle()
    assert not asked


async def test_rows_are_read_by_any_host(api: Api) -> None:
    session = await api.session()
    api.owners.elsewhere[session] = PEER
    assert (await api.call("GET", f"/sessions/{session}")).status == 200
    assert (await api.call("GET", "/sessions")).json["total"] == 1


async def test_a_request_is_counted_by_the_host_that_answers_it(api: Api) -> None:
    session = await api.session()
    api.owners.elsewhere[session] = PEER
    assert await ask(api, session, "POST", "/execute", {"sessionId": session, "code": "1"}) == (204, "@peer")
    text = (await api.metrics()).body.decode()
    assert 'buntime_requests_carried_total{route="/execute"} 1.0' in text
    assert 'buntime_requests_total{method="POST",route="/execute"' not in text


async def test_the_edge_learns_which_host_answers(api: Api) -> None:
    session = await api.session()
    api.owners.elsewhere[session] = PEER
    caller = await api.operations.identity.identify(api.key)
    with pytest.raises(AnotherHost) as elsewhere:
        await api.operations.sessions.patch(caller, session, Patch(metadata={}))
    assert elsewhere.value.peer == PEER


@pytest.mark.parametrize(("method", "path", "body"), USES)
async def test_a_session_that_was_awake_on_a_lost_host_says_so(
    api: Api, method: str, path: str, body: dict[str, object] | None
) -> None:
    session = await api.session()
    api.owners.lost.add(session)
    named = {"sessionId": session} if "{}" not in path else {}
    answer = await api.call(method, path.format(session), None if body is None else {**named, **body})
    assert (answer.refusal, answer.error["details"]["reason"]) == ((503, "unavailable"), "host_lost")


async def test_a_host_that_may_not_act_acknowledges_nothing(api: Api) -> None:
    session = await api.session()
    api.owners.acts = False
    for method, path, body in [*USES, ("GET", "/sessions", None), ("GET", "/sessions/{}", None)]:
        assert await ask(api, session, method, path, body) == (503, "unavailable"), path
    assert (await api.call("GET", "/healthz", key="")).status == 200
    api.owners.acts = True
    assert (await api.call("GET", f"/sessions/{session}")).json["state"] == State.ACTIVE


async def test_the_edge_learns_which_host_has_the_session_of_a_preview(api: Api) -> None:
    session = await api.session()
    api.owners.elsewhere[session] = PEER
    answer = await api.ask(session.replace("_", "-") + ".localhost:8000")
    assert (answer.status, answer.headers["X-Peer"], answer.headers["X-Peer-Address"]) == (200, PEER.id, PEER.address)
    assert "X-Upstream" not in answer.headers


async def test_no_visitor_is_admitted_where_the_host_may_not_act(api: Api) -> None:
    session = await api.session()
    api.owners.acts = False
    assert (await api.ask(session.replace("_", "-") + ".localhost:8000")).status == 503
