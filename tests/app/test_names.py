"""Names of sessions, and get-or-create."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from buntime.ports import Answer as Stored
from buntime.session import Session, State
from tests.app.serving import Answer, Api
from tests.waiting import eventually

CREATE = "/sessions/create"
EXISTING = "Session-Existing"


async def create(api: Api, name: str, key: str | None = None, **fields: Any) -> Answer:
    return await api.call("POST", CREATE, {"name": name, **fields}, key=key)


async def got(api: Api, name: str, **fields: Any) -> Answer:
    return await create(api, name, onConflict="return", **fields)


async def name_of(api: Api, session: str) -> str | None:
    name: str | None = (await api.call("GET", f"/sessions/{session}")).json["name"]
    return name


async def test_a_session_shows_its_name_and_is_found_by_it(api: Api) -> None:
    session = await api.session(name="build")
    assert (await api.call("GET", "/sessions/name:build")).json["sessionId"] == session
    assert (await api.call("GET", "/sessions/name%3Abuild")).json["name"] == "build"
    assert await name_of(api, await api.session()) is None


@pytest.mark.parametrize("name", ["", "-a", "a_b", "A", "a.b", "a" * 64, "é", "a\n"])
async def test_a_name_of_other_characters_is_invalid(api: Api, name: str) -> None:
    session = await api.session()
    for answer in (await create(api, name), await api.call("PATCH", f"/sessions/{session}", {"name": name})):
        assert answer.refusal == (400, "invalid_request")
        assert answer.error["details"]["field"] == "name"


@pytest.mark.parametrize("name", ["a", "0", "a-", "9-b", "a" * 63])
async def test_names_may_have_63_letters_digits_and_hyphens(api: Api, name: str) -> None:
    assert await name_of(api, await api.session(name=name)) == name


async def test_a_taken_name_is_refused_with_the_session_that_has_it(api: Api) -> None:
    session, other = await api.session(name="build"), await api.session()
    for answer in (await create(api, "build"), await api.call("PATCH", f"/sessions/{other}", {"name": "build"})):
        assert answer.refusal == (409, "name_taken")
        assert answer.error["details"] == {"name": "build", "sessionId": session}
        assert not answer.error["retryable"]
    assert len(api.sandboxes.running) == 2
    assert await name_of(api, other) is None


async def test_accounts_do_not_see_each_others_names(api: Api) -> None:
    session = await api.session(name="build")
    other = await api.account(name="other")
    assert (await api.call("GET", "/sessions/name:build", key=other)).refusal == (404, "session_not_found")
    theirs = await create(api, "build", key=other)
    assert theirs.json["sessionId"] != session
    assert (await api.call("GET", "/sessions/name:build")).json["sessionId"] == session


async def test_get_or_create_makes_one_session_and_then_finds_it(api: Api) -> None:
    first = await got(api, "build", metadata={"a": 1})
    again = await got(api, "build", metadata={"a": 2}, ttl=300)
    assert EXISTING not in first.headers
    assert (again.headers[EXISTING], again.body) == ("true", first.body)
    assert (await api.call("GET", "/sessions/name:build")).json["metadata"] == {"a": 1}


async def test_an_existing_session_is_returned_asleep_and_stays_so(api: Api) -> None:
    session = (await got(api, "build")).json["sessionId"]
    await api.call("POST", "/sessions/name:build/sleep", {"depth": "deep-sleep"})
    assert (await got(api, "build")).json["sessionId"] == session
    assert (await api.call("GET", f"/sessions/{session}")).json["state"] == "deep-sleep"


async def test_100_creates_of_one_name_at_once_give_one_session_and_100_responses(api: Api) -> None:
    api.sandboxes.open_for_claims.clear()
    calls = asyncio.gather(*(got(api, "build") for _ in range(100)))
    await eventually(lambda: api.sandboxes.claims_waiting)
    api.sandboxes.open_for_claims.set()
    answers = await calls
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert sum(EXISTING in answer.headers for answer in answers) == 99
    assert len(api.store.sessions) == len(api.sandboxes.running) == 1


async def test_100_creates_of_one_name_at_once_claim_one_sandbox_if_conflicts_are_errors(api: Api) -> None:
    api.sandboxes.open_for_claims.clear()
    calls = asyncio.gather(*(create(api, "build") for _ in range(100)))
    await eventually(lambda: api.sandboxes.claims_waiting)
    assert api.sandboxes.claims_waiting == 1
    api.sandboxes.open_for_claims.set()
    answers = await calls
    (made,) = [answer.json["sessionId"] for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.refusal for answer in refused} == {(409, "name_taken")}
    assert {answer.error["details"]["sessionId"] for answer in refused} == {made}
    assert len(api.store.sessions) == len(api.sandboxes.running) == 1


async def test_a_create_that_fails_leaves_the_name_free(api: Api) -> None:
    api.sandboxes.capacity = 0
    assert (await create(api, "build")).status == 503
    api.sandboxes.capacity = 9
    assert (await create(api, "build")).status == 200


async def test_a_name_that_another_server_gave_away_meanwhile_leaves_no_sandbox(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, theirs = api.store.add_session, list[Session]()

    async def add_theirs_first(session: Session, answer: Stored | None, limit: int, **more: Any) -> None:
        if not theirs:
            theirs.append(replace(session, id="ses_theirs"))
            await add(theirs[0], None, limit)
        await add(session, answer, limit, **more)

    monkeypatch.setattr(api.store, "add_session", add_theirs_first)
    answer = await got(api, "build")
    assert (answer.json["sessionId"], answer.headers[EXISTING]) == ("ses_theirs", "true")
    assert api.sandboxes.running == {}
    del theirs[:]
    api.store.sessions.clear()
    refused = await create(api, "build")
    assert refused.refusal == (409, "name_taken")
    assert refused.error["details"]["sessionId"] == "ses_theirs"
    assert api.sandboxes.running == {}


async def test_get_or_create_is_not_refused_for_the_number_of_sessions(api: Api) -> None:
    key = await api.account(name="few", sessions=1)
    body = {"name": "build", "onConflict": "return"}
    first = await api.call("POST", CREATE, body, key=key)
    again = await api.call("POST", CREATE, body, key=key)
    assert (again.status, again.body) == (200, first.body)
    other = await api.call("POST", CREATE, {**body, "name": "test"}, key=key)
    assert other.refusal == (429, "session_limit_exceeded")


async def test_what_to_do_on_a_conflict_needs_a_name(api: Api) -> None:
    answer = await api.call("POST", CREATE, {"onConflict": "return"})
    assert answer.refusal == (400, "invalid_request")
    assert answer.error["details"]["field"] == "onConflict"
    assert (await api.call("POST", CREATE, {"onConflict": "error"})).status == 200
    assert (await create(api, "a", onConflict="replace")).refusal == (400, "invalid_request")


async def test_a_replay_of_get_or_create_is_the_same_response(api: Api) -> None:
    body: dict[str, Any] = {"name": "build", "onConflict": "return"}
    first = await api.call("POST", CREATE, body, Idempotency_Key="first")
    found = await api.call("POST", CREATE, body, Idempotency_Key="second")
    await api.call("DELETE", "/sessions/name:build")
    for key, answer, existed in (("first", first, None), ("second", found, "true")):
        again = await api.call("POST", CREATE, body, Idempotency_Key=key)
        assert (again.status, again.body, again.headers.get(EXISTING)) == (200, first.body, existed)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert answer.headers.get(EXISTING) == existed


async def test_a_refused_name_is_replayed_for_its_key(api: Api) -> None:
    session = await api.session(name="build")
    first = await api.call("POST", CREATE, {"name": "build"}, Idempotency_Key="k")
    await api.call("DELETE", f"/sessions/{session}")
    again = await api.call("POST", CREATE, {"name": "build"}, Idempotency_Key="k")
    assert (again.status, again.body) == (409, first.body)


async def test_a_name_is_free_again_after_a_deletion(api: Api) -> None:
    first = await api.session(name="build")
    assert (await api.call("DELETE", "/sessions/name:build")).json == {"deleted": True, "sessionId": first}
    assert (await api.call("GET", "/sessions/name:build")).refusal == (404, "session_not_found")
    assert await api.session(name="build") != first


async def test_a_name_is_free_again_when_its_session_has_expired(api: Api) -> None:
    first = await api.session(name="build", ttl=300)
    await api.session(name="test", ttl=300)
    other = await api.session(ttl=600)
    api.clock.now += 300
    assert (await api.call("GET", "/sessions/name:build")).refusal == (404, "session_not_found")
    answer = await got(api, "build")
    assert (answer.status, EXISTING in answer.headers) == (200, False)
    assert answer.json["sessionId"] != first
    assert (await api.call("PATCH", f"/sessions/{other}", {"name": "test"})).json["name"] == "test"


async def test_many_creates_of_a_name_that_has_expired_make_one_session(api: Api) -> None:
    await api.session(name="build", ttl=300)
    api.clock.now += 300
    answers = await asyncio.gather(*(got(api, "build") for _ in range(10)), api.keep(api.keeper()))
    assert len({answer.body for answer in answers if answer}) == 1
    living = [one for one in api.store.sessions.values() if one.state is not State.DELETING]
    assert len(living) == 1


async def test_a_patch_gives_a_name_and_takes_it_away(api: Api) -> None:
    session, path = await api.session(name="build"), "/sessions/name:build"
    assert (await api.call("PATCH", path, {"name": "build"})).json["name"] == "build"
    assert (await api.call("PATCH", path, {"ttl": 300})).json["name"] == "build"
    renamed = await api.call("PATCH", path, {"name": "test"})
    assert (renamed.json["sessionId"], renamed.json["name"]) == (session, "test")
    assert (await api.call("GET", path)).status == 404
    assert (await api.call("PATCH", "/sessions/name:test", {"name": None})).json["name"] is None
    await api.session(name="test")
    await api.session(name="build")


async def test_a_list_can_be_of_one_name(api: Api) -> None:
    session = await api.session(name="build")
    await api.session(name="build-2")
    found = (await api.call("GET", "/sessions?name=build")).json
    assert ([one["sessionId"] for one in found["sessions"]], found["total"]) == ([session], 1)
    for nothing in ("name=b", "name=name:build", "name=build&state=idle", "name=build&metadata.a=1"):
        assert (await api.call("GET", f"/sessions?{nothing}")).json == {"sessions": [], "total": 0}


async def test_a_name_stands_for_the_id_in_path_query_and_body(api: Api) -> None:
    session = await api.session(name="build")
    named = {"sessionId": "name:build"}
    run = await api.call("POST", "/execute", {**named, "command": "echo hi"})
    assert (run.status, run.json["stdout"]) == (200, "hi\n")
    await api.call("POST", "/files/write", {**named, "path": "a.txt", "content": "a"})
    assert (await api.call("GET", "/files/content?sessionId=name:build&path=a.txt")).body == b"a"
    put = await api.call("PUT", "/files/content?sessionId=name:build&path=b.txt", b"b", Content_Type="text/plain")
    assert put.status == 200
    taken = await api.call("POST", "/sessions/name:build/snapshots")
    assert taken.json["sessionId"] == session
    assert (await api.call("GET", "/snapshots?sessionId=name:build")).json["total"] == 1
    image = await api.call("POST", "/images/create", {**named, "name": "mine"})
    assert image.status == 200
    async with api.http.post(
        api.url + "/execute",
        json={**named, "command": "echo hi", "stream": True},
        headers={"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"},
    ) as streamed:
        assert b"hi" in await streamed.read()
    url = api.url.replace("http", "ws", 1) + "/sessions/name:build/terminal"
    async with connect(url, additional_headers={"Authorization": f"Bearer {api.key}"}) as terminal:
        assert "ready" in str(await terminal.recv())


@pytest.mark.parametrize("name", ["nothing", "", "BUILD", "build ", "build%00", "x" * 300])
async def test_an_unknown_name_is_not_found_like_an_unknown_id(api: Api, name: str) -> None:
    await api.session(name="build")
    for method, path, body in (
        ("GET", f"/sessions/name:{name}", None),
        ("GET", f"/files/content?sessionId=name:{name}&path=a", None),
        ("POST", "/execute", {"sessionId": f"name:{name}", "command": "true"}),
    ):
        assert (await api.call(method, path, body)).refusal == (404, "session_not_found")


async def test_a_name_is_no_host_of_a_preview(api: Api) -> None:
    await api.session(name="build")
    for host in ("build.localhost", "name-build.localhost", "name:build.localhost"):
        assert (await api.ask(host)).status == 404


async def test_a_fork_has_a_name_of_its_own_or_none(api: Api) -> None:
    await api.session(name="build")
    path = "/sessions/name:build/fork"
    (first,) = (await api.call("POST", path)).json["sessions"]
    assert await name_of(api, first["session"]["sessionId"]) is None
    (second,) = (await api.call("POST", path, {"name": "test"})).json["sessions"]
    assert await name_of(api, second["session"]["sessionId"]) == "test"
    assert (await api.call("POST", path, {"name": "test"})).refusal == (409, "name_taken")
    many = await api.call("POST", path, {"name": "many", "count": 2})
    assert many.refusal == (400, "invalid_request")
    assert many.error["details"]["field"] == "name"
    assert (await api.call("POST", path, {"name": None, "count": 2})).status == 200


async def test_a_restore_keeps_the_name(api: Api) -> None:
    session = await api.session(name="build")
    taken = (await api.call("POST", "/sessions/name:build/snapshots")).json["snapshotId"]
    restored = await api.call("POST", "/sessions/name:build/restore", {"snapshotId": taken})
    assert (restored.json["sessionId"], restored.json["name"]) == (session, "build")
