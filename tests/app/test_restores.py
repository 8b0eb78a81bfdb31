"""Restores over HTTP: a session gets the files of a snapshot, whole or not at all."""

import pytest

from tests.app.serving import Api
from tests.app.sleeping import content_of, deep_sleep, evicted, stored_of, write
from tests.app.test_snapshots import UNKNOWN, awake, idle, take
from tests.waiting import eventually


async def restore(api: Api, session: str, snapshot: str) -> None:
    answer = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert answer.status == 200, answer.body


async def test_files_are_those_of_the_snapshot_and_the_session_stays_itself(api: Api) -> None:
    session = await api.session(metadata={"a": 1})
    await write(api, session, "old")
    snapshot = await take(api, session)
    await write(api, session, "new")
    before = (await api.call("GET", f"/sessions/{session}")).json
    answer = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert answer.json["state"] == "active"
    assert await content_of(api, session) == "old"
    after = (await api.call("GET", f"/sessions/{session}")).json
    assert {name: after[name] for name in before if name != "filesCount"} == {
        name: before[name] for name in before if name != "filesCount"
    }


async def test_the_session_is_still_made_of_its_first_snapshot(api: Api) -> None:
    other = await awake(api)
    first, second = await take(api, other), await take(api, other)
    session = await api.session(snapshotId=first)
    answer = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": second})
    assert answer.json["snapshotId"] == first
    assert (await api.call("GET", f"/sessions/{session}")).json["snapshotId"] == first


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "once"}], ids=["plain", "keyed"])
@pytest.mark.parametrize("sleeps", [False, True], ids=["active", "asleep"])
async def test_the_answer_is_what_a_look_at_the_session_shows(api: Api, headers: dict[str, str], sleeps: bool) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    for name in ("b.txt", "c.txt"):
        await api.call("POST", "/files/write", {"sessionId": session, "path": name, "content": ""})
    await api.call("POST", "/processes/start", {"sessionId": session, "command": "sleep 100"})
    api.clock.now += 5
    if sleeps:
        await deep_sleep(api, session)
    path, body = f"/sessions/{session}/restore", {"snapshotId": snapshot}
    answer = await api.call("POST", path, body, **headers)
    assert answer.json == (await api.call("GET", f"/sessions/{session}")).json
    assert answer.json["filesCount"] == (3 if sleeps else 1), "nobody has counted the files of a sleeping session"
    if headers:
        assert (await api.call("POST", path, body, **headers)).json == answer.json


async def test_processes_end(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    started = await api.call("POST", "/processes/start", {"sessionId": session, "command": "sleep 100"})
    await restore(api, session, snapshot)
    found = await api.call("GET", f"/processes/list?sessionId={session}")
    assert started.json["processId"] not in [each["processId"] for each in found.json["processes"]]


async def test_a_sleeping_session_stays_asleep(api: Api) -> None:
    for prepare in (idle, _asleep, _evicted):
        session = await prepare(api)
        snapshot = await take(api, session)
        answer = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
        assert (answer.status, answer.json["state"]) == (200, "deep-sleep")
        assert await content_of(api, session) == "kept"


async def _asleep(api: Api) -> str:
    session = await awake(api)
    await deep_sleep(api, session)
    return session


async def _evicted(api: Api) -> str:
    return await evicted(api, "kept")


async def test_the_files_before_are_kept_once_for_a_day_and_not_counted(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    for content in ("one", "two"):
        await write(api, session, content)
        await restore(api, session, snapshot)
        api.clock.now += 1
    found = (await api.call("GET", f"/snapshots?sessionId={session}&name=before-restore")).json
    assert found["total"] == 1
    kept = found["snapshots"][0]
    assert kept["expiresAt"] == "2024-01-20T10:30:01Z"
    assert await content_of(api, await api.session(snapshotId=kept["snapshotId"])) == "two"
    await restore(api, session, kept["snapshotId"])
    assert await content_of(api, session) == "two"


async def test_another_sessions_snapshot_can_be_restored(api: Api) -> None:
    one, two = await awake(api), await api.session()
    await restore(api, two, await take(api, one))
    assert await content_of(api, two) == "kept"


async def test_a_session_in_use_is_busy_and_stays_as_it_is(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    with api.lifecycle.holds.held(session):
        refused = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert refused.refusal == (409, "session_busy")
    assert (await api.call("GET", "/snapshots")).json["total"] == 1


async def test_files_that_need_more_than_the_limit_are_refused_before_anything_is_done(api: Api) -> None:
    big, small = await api.session(resourceLimits={"disk": 64}), await api.session(resourceLimits={"disk": 16})
    await write(api, big, "x" * (17 << 20))
    await write(api, small, "kept")
    snapshot = await take(api, big)
    refused = await api.call("POST", f"/sessions/{small}/restore", {"snapshotId": snapshot})
    assert refused.refusal == (507, "disk_full")
    assert await content_of(api, small) == "kept"


async def test_foreign_and_unknown_ones_are_not_found(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    other = await api.account(name="two")
    theirs = (await api.call("POST", "/sessions/create", {}, key=other)).json["sessionId"]
    for asked, key, code in (
        ((session, UNKNOWN), None, "snapshot_not_found"),
        ((theirs, snapshot), other, "snapshot_not_found"),
        ((session, snapshot), other, "session_not_found"),
    ):
        refused = await api.call("POST", f"/sessions/{asked[0]}/restore", {"snapshotId": asked[1]}, key=key)
        assert refused.refusal == (404, code)


async def test_a_repeated_request_restores_once(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)

    async def ask() -> dict[str, object]:
        body = {"snapshotId": snapshot}
        answer = await api.call("POST", f"/sessions/{session}/restore", body, Idempotency_Key="once")
        shown: dict[str, object] = answer.json
        return shown

    api.clock.now += 5  # a restored session was active before, and is again
    first = await ask()
    await write(api, session, "later")
    assert await ask() == first
    assert await content_of(api, session) == "later"


async def test_the_old_volume_and_its_objects_go(api: Api) -> None:
    session = await _evicted(api)
    snapshot = await take(api, session)
    await restore(api, session, snapshot)
    stored = await stored_of(api, session)
    await eventually(lambda: not any(name.startswith(f"{session}/") for name in api.archive.objects))
    assert (stored.saved, stored.previous, stored.archived) == (None, None, False)
    layers = {layer.id for layer in await api.store.all_layers()}
    await eventually(lambda: set(api.sandboxes.volumes) == {stored.volume} | layers)


async def test_a_failing_store_leaves_the_session_as_it_was(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from buntime.errors import Unavailable

    async def fails(*_: object, **__: object) -> None:
        raise Unavailable("no disk")

    session = await awake(api)
    snapshot = await take(api, session)
    await write(api, session, "now")
    monkeypatch.setattr(api.store, "restore_session", fails)
    refused = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert refused.refusal == (503, "unavailable")
    assert await content_of(api, session) == "now"
    assert len(await api.store.all_layers()) == 1
