"""Snapshots over HTTP: taken in every state, listed, deleted, kept, and made into sessions again."""

from collections.abc import Awaitable, Callable

import pytest

from buntime.account import AccountStatus
from buntime.errors import Unavailable
from buntime.session import DESTROYED
from tests.app.serving import START, Answer, Api
from tests.app.sleeping import content_of, deep_sleep, evicted, stored_of, write
from tests.waiting import eventually

UNKNOWN = "snp_" + "x" * 18


async def take(api: Api, session: str, **fields: object) -> str:
    """Takes a snapshot and returns its id."""
    answer = await api.call("POST", f"/sessions/{session}/snapshots", fields)
    assert answer.status == 200, answer.body
    taken: str = answer.json["snapshotId"]
    return taken


async def awake(api: Api) -> str:
    session = await api.session()
    await write(api, session, "kept")
    return session


async def idle(api: Api) -> str:
    session = await awake(api)
    assert (await api.call("POST", f"/sessions/{session}/sleep")).status == 200
    return session


async def asleep(api: Api) -> str:
    session = await awake(api)
    await deep_sleep(api, session)
    return session


async def gone_to_the_archive(api: Api) -> str:
    return await evicted(api, "kept")


STATES = [awake, idle, asleep, gone_to_the_archive]


@pytest.mark.parametrize("prepare", STATES)
async def test_a_snapshot_of_any_state_has_the_files_and_changes_nothing(
    api: Api, prepare: Callable[[Api], Awaitable[str]]
) -> None:
    session = await prepare(api)
    before = await stored_of(api, session)
    snapshot = await take(api, session)
    assert (await stored_of(api, session)).state is before.state
    made = await api.session(snapshotId=snapshot)
    assert await content_of(api, made) == "kept"


async def test_a_snapshot_says_what_it_is(api: Api) -> None:
    session = await awake(api)
    answer = await api.call(
        "POST", f"/sessions/{session}/snapshots", {"name": "first", "metadata": {"a": [1]}, "ttl": 60}
    )
    snapshot = answer.json["snapshotId"]
    shown = {
        "snapshotId": snapshot,
        "sessionId": session,
        "name": "first",
        "metadata": {"a": [1]},
        "image": "default",
        "sizeBytes": 4,
        "createdAt": "2024-01-19T10:30:00Z",
        "expiresAt": "2024-01-19T10:31:00Z",
    }
    assert answer.json == shown
    assert (await api.call("GET", f"/snapshots/{snapshot}")).json == shown
    assert (await api.call("GET", "/snapshots")).json == {"snapshots": [shown], "total": 1}


async def test_what_is_written_afterwards_is_not_in_it(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    await write(api, session, "changed")
    made = await api.session(snapshotId=snapshot)
    await write(api, made, "changed here alone")
    again = await api.session(snapshotId=snapshot)
    assert [await content_of(api, each) for each in (session, made, again)] == [
        "changed",
        "changed here alone",
        "kept",
    ]


async def test_lists_are_filtered_and_have_pages(api: Api) -> None:
    one, two = await awake(api), await awake(api)
    for session, name in ((one, "a"), (one, "b"), (two, "a")):
        await take(api, session, name=name)
        api.clock.now += 1

    async def listed(query: str) -> list[tuple[str, str]]:
        found = (await api.call("GET", f"/snapshots{query}")).json["snapshots"]
        return [(each["sessionId"], each["name"]) for each in found]

    assert await listed("") == [(two, "a"), (one, "b"), (one, "a")]
    assert await listed(f"?sessionId={one}") == [(one, "b"), (one, "a")]
    assert await listed("?name=a") == [(two, "a"), (one, "a")]
    assert await listed("?limit=1&offset=1") == [(one, "b")]


async def test_snapshots_of_the_same_second_are_listed_newest_first(api: Api) -> None:
    session = await awake(api)
    taken = [await take(api, session) for _ in range(6)]
    listed = (await api.call("GET", "/snapshots")).json["snapshots"]
    assert [each["snapshotId"] for each in listed] == taken[::-1]
    page = (await api.call("GET", "/snapshots?limit=2&offset=2")).json["snapshots"]
    assert [each["snapshotId"] for each in page] == [taken[3], taken[2]]


async def test_a_snapshot_outlives_its_session_and_has_a_key_of_its_own(api: Api) -> None:
    session = await asleep(api)
    snapshot = await take(api, session)
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await eventually(lambda: session not in api.store.sessions)
    assert await content_of(api, await api.session(snapshotId=snapshot)) == "kept"
    (layer,) = await api.store.all_layers()
    await eventually(lambda: any(name.startswith(f"{layer.id}/") for name in api.archive.objects))
    assert not any(name.startswith(session) for name in api.archive.objects)


async def test_a_snapshot_that_only_the_archive_has_is_fetched(api: Api) -> None:
    snapshot = await take(api, await awake(api))
    (layer,) = await api.store.all_layers()
    await eventually(lambda: any(name.startswith(f"{layer.id}/") for name in api.archive.objects))
    await saved(api)
    assert await api.lifecycle.layers.evict(1)
    assert not api.sandboxes.volumes.exists(layer.id)
    assert await content_of(api, await api.session(snapshotId=snapshot)) == "kept"


async def test_a_snapshot_that_nobody_has_whole_says_so(api: Api) -> None:
    snapshot = await take(api, await awake(api))
    await saved(api)
    assert await api.lifecycle.layers.evict(1)
    api.archive.objects.clear()
    refused = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert refused.refusal == (409, "invalid_state")
    assert refused.error["details"] == {"reason": "snapshot_damaged"}


async def test_what_nothing_refers_to_goes_with_its_key_and_objects(api: Api) -> None:
    snapshot = await take(api, await awake(api))
    await saved(api)
    (layer,) = await api.store.all_layers()
    assert (await api.call("DELETE", f"/snapshots/{snapshot}")).json == {"deleted": True, "snapshotId": snapshot}
    api.archive.unreachable = True
    await api.lifecycle.layers.tidy()
    (condemned,) = await api.store.all_layers()
    assert condemned.key == DESTROYED, "the key goes at once, even if the objects cannot"
    api.archive.unreachable = False
    await api.lifecycle.layers.tidy()
    assert not await api.store.all_layers()
    assert not api.sandboxes.volumes.exists(layer.id)
    assert not any(name.startswith(f"{layer.id}/") for name in api.archive.objects)


async def test_an_expired_snapshot_is_not_found_and_goes(api: Api) -> None:
    snapshot = await take(api, await awake(api), ttl=60)
    api.clock.now += 60
    assert (await api.call("GET", f"/snapshots/{snapshot}")).refusal == (404, "snapshot_not_found")
    assert (await api.call("GET", "/snapshots")).json["total"] == 0
    assert (await api.call("POST", "/sessions/create", {"snapshotId": snapshot})).refusal[0] == 404
    await api.lifecycle.layers.tidy()
    assert not await api.store.all_layers()


async def test_children_live_on_when_a_snapshot_is_deleted(api: Api) -> None:
    snapshot = await take(api, await awake(api))
    made = await api.session(snapshotId=snapshot)
    await api.call("DELETE", f"/snapshots/{snapshot}")
    await api.lifecycle.layers.tidy()
    assert await content_of(api, made) == "kept"


async def test_a_session_says_which_snapshot_it_was_made_of(api: Api) -> None:
    source = await awake(api)
    snapshot = await take(api, source)
    made = await api.session(snapshotId=snapshot)
    listed = {each["sessionId"]: each["snapshotId"] for each in (await api.call("GET", "/sessions")).json["sessions"]}
    assert listed == {source: None, made: snapshot}
    answers = [
        await api.call("GET", f"/sessions/{made}"),
        await api.call("PATCH", f"/sessions/{made}", {"metadata": {"a": 1}}),
        await api.call("POST", f"/sessions/{made}/sleep", {"depth": "deep-sleep"}),
        await api.call("POST", f"/sessions/{made}/wake"),
    ]
    assert [each.json["snapshotId"] for each in answers] == [snapshot] * 4


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_session_says_what_it_was_made_of_when_the_snapshot_is_gone(api: Api, is_deleted: bool) -> None:
    snapshot = await take(api, await awake(api), ttl=60)
    made = await api.session(snapshotId=snapshot)
    if is_deleted:
        await api.call("DELETE", f"/snapshots/{snapshot}")
    else:
        api.clock.now += 60
    await api.lifecycle.layers.tidy()
    assert not api.store.snapshots
    assert (await api.call("GET", f"/sessions/{made}")).json["snapshotId"] == snapshot


async def test_nobody_else_sees_it(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    other = await api.account(name="two")
    assert (await api.call("GET", "/snapshots", key=other)).json == {"snapshots": [], "total": 0}
    refused: list[Answer] = [
        await api.call("GET", f"/snapshots/{snapshot}", key=other),
        await api.call("DELETE", f"/snapshots/{snapshot}", key=other),
        await api.call("POST", "/sessions/create", {"snapshotId": snapshot}, key=other),
        await api.call("POST", f"/sessions/{session}/snapshots", {}, key=other),
    ]
    codes = ["snapshot_not_found"] * 3 + ["session_not_found"]
    assert [each.refusal for each in refused] == [(404, code) for code in codes]
    assert (await api.call("GET", f"/snapshots/{snapshot}")).status == 200


@pytest.mark.parametrize("text", [UNKNOWN, "snp_", "x", "%00"])
async def test_an_unknown_snapshot_is_not_found(api: Api, text: str) -> None:
    assert (await api.call("GET", f"/snapshots/{text}")).refusal == (404, "snapshot_not_found")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"ttl": 59}, "ttl"),
        ({"ttl": 1 << 40}, "ttl"),
        ({"metadata": {"a": "x" * 20_000}}, "metadata"),
        ({"other": 1}, "other"),
    ],
)
async def test_wrong_fields_are_refused_by_name(api: Api, fields: dict[str, object], field: str) -> None:
    refused = await api.call("POST", f"/sessions/{await awake(api)}/snapshots", fields)
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), field)
    assert not await api.store.all_layers()


async def test_a_plan_bounds_their_number(api: Api) -> None:
    key = await api.account(name="two", snapshots=1)
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    taken = await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)
    refused = await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"] == {"resource": "snapshots", "limit": 1, "scope": "account", "plan": "paid"}
    assert refused.error["message"] == "The paid plan allows 1 snapshots at a time in one account. Delete one first."
    await api.call("DELETE", f"/snapshots/{taken.json['snapshotId']}", key=key)
    assert (await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)).status == 200


async def test_a_plan_bounds_what_they_alone_keep(api: Api) -> None:
    key = await api.account(name="two", snapshot_gb=0)
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "12345"}, key=key)
    await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)
    shared = await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)
    assert shared.status == 200, "the session has all of it, so snapshots alone keep nothing"
    await api.call("DELETE", f"/files/delete?sessionId={session}&path=a", key=key)
    refused = await api.call("POST", f"/sessions/{session}/snapshots", {}, key=key)
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"]["resource"] == "snapshot_gb"
    assert refused.error["details"]["usedBytes"] == 5


async def test_a_session_needs_room_for_the_files(api: Api) -> None:
    session = await api.session(resourceLimits={"disk": 64})
    await write(api, session, "x" * (17 << 20))
    snapshot = await take(api, session)
    refused = await api.call("POST", "/sessions/create", {"snapshotId": snapshot, "resourceLimits": {"disk": 16}})
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "resourceLimits.disk")


async def test_a_snapshot_has_its_image(api: Api) -> None:
    snapshot = await take(api, await awake(api))
    refused = await api.call("POST", "/sessions/create", {"snapshotId": snapshot, "image": "default"})
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "snapshotId")


async def test_a_repeated_request_makes_one_snapshot(api: Api) -> None:
    session = await awake(api)
    answers = [await api.call("POST", f"/sessions/{session}/snapshots", {}, Idempotency_Key="once") for _ in range(2)]
    assert answers[0].json == answers[1].json
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert (await api.call("GET", "/snapshots")).json["total"] == 1


async def test_a_deleted_account_keeps_nothing(api: Api) -> None:
    await take(api, await awake(api))
    await saved(api)
    await api.store.set_account_status("acc_one0000000000000", AccountStatus.DELETED)
    await api.keep(api.keeper())
    await api.lifecycle.layers.tidy()
    assert not await api.store.all_layers()


async def test_a_deleted_account_is_emptied_later_if_the_store_cannot_now(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(account_id: str) -> int:
        raise Unavailable("no disk")

    await take(api, await awake(api))
    await api.store.set_account_status("acc_one0000000000000", AccountStatus.DELETED)
    keeper = api.keeper()
    with monkeypatch.context() as broken:
        broken.setattr(api.store, "drop_kept_of", fails)
        await api.keep(keeper)
        assert api.store.snapshots
    await api.keep(keeper)
    assert not api.store.snapshots


async def saved(api: Api) -> None:
    """Waits until the archive has every layer."""
    await eventually(lambda: all(layer.saved for layer in api.store.layers.values()))
    assert api.clock.now >= START
