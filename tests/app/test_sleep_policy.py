"""When a session sleeps, and that it need not end, as its client says within what the plan allows."""

from dataclasses import replace

import pytest

from buntime.account import AccountStatus
from buntime.lifecycle.keeper import Keeper
from buntime.session import State
from tests.app.serving import Api
from tests.app.sleeping import stored_of

DEFAULT = {"idleAfter": 300, "deepSleepAfter": 1800, "checkpointEvery": "never", "awakeWhile": "requests"}
DAY = 86_400.0
ACCOUNT = "acc_one0000000000000"


async def policy(api: Api, session: str) -> object:
    return (await api.call("GET", f"/sessions/{session}")).json["sleepPolicy"]


async def state(api: Api, session: str) -> State:
    return (await stored_of(api, session)).state


async def pass_time(api: Api, keeper: Keeper, seconds: float) -> None:
    """The keeper ticks now, when so many seconds have passed, and once more."""
    await api.keep(keeper)
    api.clock.now += seconds
    await api.keep(keeper)
    await api.keep(keeper)


# --- what is asked for and shown ---


async def test_a_session_has_the_policy_that_it_asks_for_and_the_default_of_the_rest(api: Api) -> None:
    assert await policy(api, await api.session()) == DEFAULT
    assert await policy(api, await api.session(sleepPolicy={})) == DEFAULT
    for asked in ({"idleAfter": 5}, {"deepSleepAfter": 604800}, {"awakeWhile": "processes"}, {"checkpointEvery": 60}):
        session = await api.session(sleepPolicy=asked)
        assert await policy(api, session) == DEFAULT | asked
        listed = (await api.call("GET", "/sessions")).json["sessions"]
        assert {one["sessionId"]: one["sleepPolicy"] for one in listed}[session] == DEFAULT | asked


async def test_a_patch_replaces_the_whole_policy_and_null_restores_the_default(api: Api) -> None:
    session = await api.session(sleepPolicy={"idleAfter": 60, "awakeWhile": "processes"})
    patched = await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"deepSleepAfter": 900}})
    assert patched.json["sleepPolicy"] == DEFAULT | {"deepSleepAfter": 900}
    untouched = await api.call("PATCH", f"/sessions/{session}", {"metadata": {"a": 1}})
    assert untouched.json["sleepPolicy"] == DEFAULT | {"deepSleepAfter": 900}
    nothing: dict[str, object] = {}
    for default in (None, nothing):
        await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"idleAfter": 7}})
        patched = await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": default})
        assert patched.json["sleepPolicy"] == DEFAULT


async def test_a_plan_may_allow_never(api: Api) -> None:
    key = await api.account("enterprise", "two")
    asked = {"idleAfter": "never", "deepSleepAfter": "never"}
    made = await api.call("POST", "/sessions/create", {"sleepPolicy": asked}, key=key)
    seen = await api.call("GET", f"/sessions/{made.json['sessionId']}", key=key)
    assert seen.json["sleepPolicy"] == DEFAULT | asked


@pytest.mark.parametrize("name", ["idleAfter", "deepSleepAfter"])
@pytest.mark.parametrize("asked", [0, 4, -1, 60.5, "60", "always", True, None, 3153600001, 1 << 70])
@pytest.mark.parametrize("path", ["/sessions/create", "/sessions/SESSION/fork", "/sessions/SESSION"])
async def test_a_wrong_wait_is_refused_by_name(api: Api, path: str, asked: object, name: str) -> None:
    session = await api.session()
    path = path.replace("SESSION", session)
    refused = await api.call("PATCH" if path.endswith(session) else "POST", path, {"sleepPolicy": {name: asked}})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"]["field"] == f"sleepPolicy.{name}"


@pytest.mark.parametrize(
    ("name", "asked", "limit"),
    [
        ("idleAfter", 3601, 3600),
        ("idleAfter", "never", 3600),
        ("deepSleepAfter", 604801, 604800),
        ("deepSleepAfter", "never", 604800),
    ],
)
@pytest.mark.parametrize("path", ["/sessions/create", "/sessions/SESSION/fork", "/sessions/SESSION"])
async def test_a_wait_beyond_the_plan_is_refused(api: Api, path: str, name: str, asked: object, limit: int) -> None:
    session = await api.session()
    path = path.replace("SESSION", session)
    refused = await api.call("PATCH" if path.endswith(session) else "POST", path, {"sleepPolicy": {name: asked}})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"] == {"field": f"sleepPolicy.{name}", "plan": "paid", "limit": limit}
    assert str(asked) in refused.error["message"]


@pytest.mark.parametrize("path", ["/sessions/create", "/sessions/SESSION/fork", "/sessions/SESSION"])
async def test_a_plan_may_forbid_to_stay_awake_for_processes(api: Api, path: str) -> None:
    key = await api.account("free", "two")
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    path = path.replace("SESSION", session)
    body = {"sleepPolicy": {"awakeWhile": "processes"}}
    refused = await api.call("PATCH" if path.endswith(session) else "POST", path, body, key=key)
    assert refused.refusal == (403, "forbidden")
    assert refused.error["details"] == {"plan": "free", "limit": "awakeWhile"}


async def test_other_values_of_awake_while_are_refused(api: Api) -> None:
    for wrong in ("always", "", None, 1, ["processes"]):
        refused = await api.call("POST", "/sessions/create", {"sleepPolicy": {"awakeWhile": wrong}})
        assert refused.refusal == (400, "invalid_request")
        assert refused.error["details"]["field"] == "sleepPolicy.awakeWhile"


async def test_a_fork_inherits_the_policy_unless_it_says_otherwise(api: Api) -> None:
    own = {"idleAfter": 60, "deepSleepAfter": 600, "awakeWhile": "processes"}
    session = await api.session(sleepPolicy=own)
    for asked, expected in (({}, own), ({"sleepPolicy": {"idleAfter": 30}}, {"idleAfter": 30})):
        made = await api.call("POST", f"/sessions/{session}/fork", asked)
        fork = made.json["sessions"][0]["session"]["sessionId"]
        assert await policy(api, fork) == DEFAULT | expected


async def test_the_account_shows_what_a_policy_may_ask_for(api: Api) -> None:
    names = ("longestTtl", "idleAfterMost", "deepSleepAfterMost", "mayAwaitProcesses")
    for plan, expected in (
        ("free", (86400, 900, 86400, False)),
        ("paid", (604800, 3600, 604800, True)),
        ("enterprise", (604800, "never", "never", True)),
    ):
        limits = (await api.call("GET", "/account", key=await api.account(plan, plan))).json["limits"]
        assert tuple(limits[name] for name in names) == expected


# --- what the keeper does ---


async def test_each_session_is_suspended_after_its_own_wait(api: Api) -> None:
    soon, usual, late = [await api.session(sleepPolicy=asked) for asked in ({"idleAfter": 60}, {}, {"idleAfter": 3600})]
    keeper = api.keeper(idle_after=300, deep_sleep_after=DAY)
    await pass_time(api, keeper, 60)
    assert [await state(api, each) for each in (soon, usual, late)] == [State.IDLE, State.ACTIVE, State.ACTIVE]
    await pass_time(api, keeper, 240)
    assert [await state(api, each) for each in (usual, late)] == [State.IDLE, State.ACTIVE]
    await pass_time(api, keeper, 3299)
    assert await state(api, late) is State.ACTIVE
    await pass_time(api, keeper, 1)
    assert await state(api, late) is State.IDLE


async def test_each_session_goes_to_deep_sleep_after_its_own_wait(api: Api) -> None:
    soon, usual = await api.session(sleepPolicy={"deepSleepAfter": 400}), await api.session()
    keeper = api.keeper(idle_after=300, deep_sleep_after=1800)
    await pass_time(api, keeper, 300)
    assert [await state(api, each) for each in (soon, usual)] == [State.IDLE, State.IDLE]
    await pass_time(api, keeper, 100)
    assert [await state(api, each) for each in (soon, usual)] == [State.DEEP_SLEEP, State.IDLE]


async def test_never_is_never(api: Api) -> None:
    key = await api.account("enterprise", "two")
    asked = {"awake": {"idleAfter": "never"}, "idle": {"deepSleepAfter": "never"}}
    made = {
        name: (await api.call("POST", "/sessions/create", {"sleepPolicy": wants}, key=key)).json["sessionId"]
        for name, wants in asked.items()
    }
    keeper = api.keeper()
    await pass_time(api, keeper, DAY / 2)
    await pass_time(api, keeper, DAY / 2 - 10)
    assert await state(api, made["awake"]) is State.ACTIVE
    assert await state(api, made["idle"]) is State.IDLE


async def test_a_changed_policy_takes_effect(api: Api) -> None:
    later, sooner = await api.session(), await api.session(sleepPolicy={"idleAfter": 3600})
    keeper = api.keeper(idle_after=300)
    await api.keep(keeper)
    await api.call("PATCH", f"/sessions/{later}", {"sleepPolicy": {"idleAfter": 3600}})
    await api.call("PATCH", f"/sessions/{sooner}", {"sleepPolicy": None})
    await pass_time(api, keeper, 300)
    assert [await state(api, each) for each in (later, sooner)] == [State.ACTIVE, State.IDLE]


async def test_a_plan_that_allows_less_now_holds_for_sessions_that_asked_for_more(api: Api) -> None:
    session = await api.session(sleepPolicy={"idleAfter": 3600, "awakeWhile": "processes"})
    account = await api.store.get_account(ACCOUNT)
    assert account
    overrides = {"idle_after_most": 400, "may_await_processes": False}
    api.store.accounts[ACCOUNT] = replace(account, overrides=overrides)
    assert await policy(api, session) == DEFAULT | {"idleAfter": 400}
    await pass_time(api, api.keeper(), 400)
    assert await state(api, session) is State.IDLE


# --- sessions that do not end ---


async def test_a_session_need_not_end_where_the_plan_allows_it(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    made = (await api.call("POST", "/sessions/create", {"ttl": "never"}, key=key)).json
    assert made["expiresAt"] is None
    path = f"/sessions/{made['sessionId']}"
    assert (await api.call("GET", path, key=key)).json["expiresAt"] is None
    listed = (await api.call("GET", "/sessions", key=key)).json
    assert [one["expiresAt"] for one in listed["sessions"]] == [None]
    keeper = api.keeper()
    for _ in range(5):
        await pass_time(api, keeper, 1000 * DAY)
    assert await state(api, made["sessionId"]) is State.DEEP_SLEEP
    assert (await api.call("GET", path, key=key)).json["state"] == "deep-sleep"
    assert (await api.call("POST", f"{path}/wake", key=key)).json["expiresAt"] is None


async def test_a_ttl_can_become_never_and_end_again(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    path = f"/sessions/{(await api.call('POST', '/sessions/create', {'ttl': 300}, key=key)).json['sessionId']}"
    keeper = api.keeper()
    await api.keep(keeper)
    assert (await api.call("PATCH", path, {"ttl": "never"}, key=key)).json["expiresAt"] is None
    await pass_time(api, keeper, DAY)
    assert (await api.call("PATCH", path, {"ttl": None}, key=key)).json["expiresAt"] == "2024-01-21T10:30:00Z"
    assert (await api.call("PATCH", path, {"ttl": "never"}, key=key)).json["expiresAt"] is None
    assert (await api.call("PATCH", path, {"ttl": 300}, key=key)).json["expiresAt"] == "2024-01-20T10:35:00Z"
    await pass_time(api, keeper, 300)
    assert (await api.call("GET", path, key=key)).status == 404


async def test_a_fork_does_not_inherit_the_ttl(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    session = (await api.call("POST", "/sessions/create", {"ttl": "never"}, key=key)).json["sessionId"]
    for asked, expected in (({}, "2024-01-20T10:30:00Z"), ({"ttl": "never"}, None)):
        made = await api.call("POST", f"/sessions/{session}/fork", asked, key=key)
        assert made.json["sessions"][0]["session"]["expiresAt"] == expected


async def test_what_never_ends_is_deleted_like_any_other(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    body = {"ttl": "never", "name": "build"}
    session = (await api.call("POST", "/sessions/create", body, key=key)).json["sessionId"]
    token = await api.call("POST", f"/sessions/{session}/preview-token", {"ttl": 600}, key=key)
    assert token.json["expiresAt"] == "2024-01-19T10:40:00Z"
    assert (await api.call("GET", "/sessions/name:build", key=key)).json["sessionId"] == session
    assert (await api.call("DELETE", f"/sessions/{session}", key=key)).status == 200
    told = (await api.call("GET", "/events", key=key)).json["events"]
    assert [one["type"] for one in told][-1] == "session.deleted"
    assert (await api.call("GET", "/sessions", key=key)).json["total"] == 0


async def test_sessions_that_never_end_go_with_their_account(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    session = (await api.call("POST", "/sessions/create", {"ttl": "never"}, key=key)).json["sessionId"]
    await api.store.set_account_status("acc_two0000000000000", AccountStatus.DELETED)
    keeper = api.keeper()
    await pass_time(api, keeper, 1)
    assert session not in api.store.sessions or (await state(api, session)) is State.DELETING


@pytest.mark.parametrize("path", ["/sessions/create", "/sessions/SESSION/fork", "/sessions/SESSION"])
async def test_never_is_refused_where_the_plan_has_a_longest_ttl(api: Api, path: str) -> None:
    session = await api.session()
    path = path.replace("SESSION", session)
    refused = await api.call("PATCH" if path.endswith(session) else "POST", path, {"ttl": "never"})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"] == {"field": "ttl", "plan": "paid", "limit": 604800}
    assert refused.error["message"] == "ttl must be 300 to 604800 seconds on the paid plan, not never."


async def test_a_ttl_in_seconds_is_bounded_also_where_a_session_need_not_end(api: Api) -> None:
    key = await api.account(name="two", longest_ttl="never")
    longest = 100 * 365 * 86400
    made = await api.call("POST", "/sessions/create", {"ttl": longest}, key=key)
    assert made.json["expiresAt"] == "2123-12-26T10:30:00Z"
    for wrong in (longest + 1, 10**30, 299, "forever"):
        refused = await api.call("POST", "/sessions/create", {"ttl": wrong}, key=key)
        assert refused.refusal == (400, "invalid_request")
    refused = await api.call("POST", "/sessions/create", {"ttl": longest + 1}, key=key)
    assert refused.error["message"].startswith("ttl must be 300 to 3153600000 seconds, or never, on the paid plan")
