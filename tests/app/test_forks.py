"""Forks over HTTP: sessions that start with the files of another one."""

from typing import Any

import pytest

from tests.app.serving import Answer, Api
from tests.app.sleeping import content_of, deep_sleep, stored_of, write
from tests.app.test_snapshots import awake, take


async def fork(api: Api, session: str, key: str | None = None, **fields: object) -> Answer:
    return await api.call("POST", f"/sessions/{session}/fork", fields, key=key)


def made_of(answer: Answer) -> list[str]:
    return [each["session"]["sessionId"] for each in answer.json["sessions"] if "session" in each]


async def test_each_has_the_files_and_goes_its_own_way(api: Api) -> None:
    session = await awake(api)
    made = made_of(await fork(api, session, count=3))
    assert len({session, *made}) == 4
    await write(api, made[0], "changed")
    await write(api, session, "source")
    assert [await content_of(api, each) for each in made] == ["changed", "kept", "kept"]


async def test_one_is_made_without_a_count_and_shown_as_a_created_session(api: Api) -> None:
    answer = await fork(api, await awake(api))
    (made,) = answer.json["sessions"]
    assert set(made) == {"session"}
    assert set(made["session"]) == {"sessionId", "expiresAt", "previewUrl", "createdAt", "resourceLimits"}


async def test_it_inherits_settings_but_not_ttl_and_metadata(api: Api) -> None:
    fields: dict[str, Any] = {
        "preview": {"visibility": "private", "ports": [3000]},
        "network": {"egress": "none", "allow": [], "deny": []},
        "onWake": "true",
        "env": {"A": "1"},
        "sleepPolicy": {"idleAfter": 60, "deepSleepAfter": 600, "awakeWhile": "processes"},
        "resourceLimits": {"memory": 512, "cpu": 0.5, "timeout": 60, "disk": 2048},
    }
    session = await api.session(**fields, ttl=300, metadata={"a": 1})
    (made,) = made_of(await fork(api, session))
    source, stored = await stored_of(api, session), await stored_of(api, made)
    inherited = ("preview", "network", "on_wake", "env", "limits", "image", "image_name", "sleep_policy")
    assert [getattr(stored, name) for name in inherited] == [getattr(source, name) for name in inherited]
    assert (stored.metadata, stored.ends_at - stored.created_at) == ({}, 86400)
    assert stored.key == ""


async def test_it_is_made_of_no_snapshot_even_if_the_source_is(api: Api) -> None:
    source = await api.session(snapshotId=await take(api, await awake(api)))
    (made,) = made_of(await fork(api, source))
    assert await content_of(api, made) == "kept"
    assert (await api.call("GET", f"/sessions/{made}")).json["snapshotId"] is None


async def test_fields_of_the_request_replace_what_is_inherited(api: Api) -> None:
    session = await api.session(env={"A": "1"}, onWake="true", resourceLimits={"memory": 512})
    (made,) = made_of(
        await fork(api, session, ttl=300, metadata={"b": 2}, env={}, onWake=None, resourceLimits={"disk": 2048})
    )
    stored = await stored_of(api, made)
    assert (stored.metadata, stored.env, stored.on_wake) == ({"b": 2}, {}, None)
    assert (stored.limits.memory, stored.limits.disk) == (512, 2048)


async def test_a_sleeping_source_is_not_woken(api: Api) -> None:
    session = await awake(api)
    await deep_sleep(api, session)
    (made,) = made_of(await fork(api, session))
    assert await content_of(api, made) == "kept"
    assert (await api.call("GET", f"/sessions/{session}")).json["state"] == "deep-sleep"


async def test_each_takes_a_place_and_fails_alone(api: Api) -> None:
    key = await api.account(name="two", sessions=3)
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    answer = await fork(api, session, key, count=4)
    kinds = sorted(next(iter(each)) for each in answer.json["sessions"])
    assert kinds == ["error", "error", "session", "session"]
    errors = [each["error"] for each in answer.json["sessions"] if "error" in each]
    assert {each["code"] for each in errors} == {"session_limit_exceeded"}
    assert {each["details"]["plan"] for each in errors} == {"paid"}
    refused = await fork(api, session, key, count=2)
    assert refused.refusal == (429, "session_limit_exceeded"), "where all fail, the answer is the error"


async def test_a_host_that_is_full_fails_those_that_do_not_fit(api: Api) -> None:
    session = await awake(api)
    api.sandboxes.capacity = len(api.sandboxes.volumes) + 2
    answer = await fork(api, session, count=4)
    assert len(made_of(answer)) == 2
    assert {each["error"]["code"] for each in answer.json["sessions"] if "error" in each} == {"unavailable"}


async def test_nothing_is_left_of_what_a_fork_needed(api: Api) -> None:
    session = await awake(api)
    made = made_of(await api.call("POST", f"/sessions/{session}/fork", {"count": 2}, Idempotency_Key="k"))
    made += made_of(await fork(api, session))
    await api.lifecycle.layers.tidy()
    assert not await api.store.all_layers()
    assert set(api.sandboxes.volumes) == {(await stored_of(api, each)).volume for each in [session, *made]}


@pytest.mark.parametrize("count", [0, -1, 101, "2", 1.5])
async def test_a_count_is_1_to_100(api: Api, count: object) -> None:
    refused = await fork(api, await awake(api), count=count)
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "count")


async def test_the_plan_bounds_the_count(api: Api) -> None:
    key = await api.account(name="two", plan="free")
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    refused = await fork(api, session, key, count=11)
    assert refused.refusal == (403, "forbidden")
    assert refused.error["details"] == {"plan": "free", "limit": 10}
    assert (await fork(api, session, key, resourceLimits={"memory": 512})).refusal == (403, "forbidden")


async def test_the_files_must_fit(api: Api) -> None:
    session = await api.session(resourceLimits={"disk": 64})
    await write(api, session, "x" * (17 << 20))
    refused = await fork(api, session, resourceLimits={"disk": 16})
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "resourceLimits.disk")
    await api.lifecycle.layers.tidy()
    assert len(api.sandboxes.volumes) == 1


async def test_a_foreign_session_is_not_found(api: Api) -> None:
    other = await api.account(name="two")
    assert (await fork(api, await awake(api), other)).refusal == (404, "session_not_found")


async def test_a_repeated_request_goes_on_where_a_crash_stopped_it(api: Api) -> None:
    """The crash is played by a server that forgets the whole answer, and one of three sessions."""
    session = await awake(api)

    async def ask() -> Answer:
        return await api.call("POST", f"/sessions/{session}/fork", {"count": 3}, Idempotency_Key="once")

    first = await ask()
    assert (await ask()).json == first.json
    answers = api.store.answers
    del answers["acc_one0000000000000", "once"]
    del answers["acc_one0000000000000", "once fork 1"]
    again = await ask()
    kept, replaced = made_of(first), made_of(again)
    assert [kept[0], kept[2]] == [replaced[0], replaced[2]]
    assert kept[1] != replaced[1]
    assert await content_of(api, replaced[1]) == "kept"


@pytest.mark.parametrize("name", [None, "one"])
async def test_two_hosts_that_make_the_same_fork_return_the_same_session(
    api: Api, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """The other host makes it just after this one has looked whether it is made."""
    session, find = await awake(api), api.store.find_answer
    asked = ("POST", f"/sessions/{session}/fork", {"count": 1, **({"name": name} if name else {})})
    first = await api.call(*asked, Idempotency_Key="once")
    del api.store.answers["acc_one0000000000000", "once"]
    looks = []

    async def late(account_id: str, key: str) -> object:
        looks.append(key)
        return await find(account_id, key) if looks.count("once fork 0") != 1 else None

    monkeypatch.setattr(api.store, "find_answer", late)
    assert (await api.call(*asked, Idempotency_Key="once")).json == first.json
    assert looks == ["once", "once fork 0", "once fork 0"]
