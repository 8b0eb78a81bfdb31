"""What is recorded as an event, and which key and address are named as its cause."""

from dataclasses import replace

from buntime.cause import SERVER, Cause
from buntime.event import KEPT_SECONDS, AccountEvent
from buntime.inside import Ended
from buntime.operations.telling import Telling
from buntime.ports import Exits, NumberedEvent
from tests.app.serving import START, Api
from tests.app.test_services import sandbox_of
from tests.waiting import eventually

ACCOUNT, KEY = "acc_one0000000000000", "key_one000000000"


def told(api: Api) -> list[AccountEvent]:
    return [numbered.event for numbered in api.store.events]


def types(api: Api) -> list[str]:
    return [event.type.value for event in told(api)]


async def test_the_life_of_a_session_is_told_in_order(api: Api) -> None:
    one = await api.session(name="ci")
    for path in ("sleep", "wake"):
        assert (await api.call("POST", f"/sessions/{one}/{path}")).status == 200
    assert (await api.call("POST", f"/sessions/{one}/sleep", {"depth": "deep-sleep"})).status == 200
    assert (await api.call("POST", "/execute", {"sessionId": one, "code": "1"})).status == 200
    await api.call("DELETE", f"/sessions/{one}")
    assert types(api) == [
        *("session.created", "session.idle", "session.woken", "session.deep_sleep", "session.woken"),
        *("execution.completed", "session.deleted"),
    ]
    assert {(event.account, event.session, event.time) for event in told(api)} == {(ACCOUNT, one, START)}
    assert told(api)[-1].data == {"name": "ci", "stateBefore": "active"}


async def test_who_deleted_a_session_with_which_key_from_which_address_is_told(api: Api) -> None:
    one = await api.session()
    await api.call("DELETE", f"/sessions/{one}", X_Forwarded_For="10.0.0.1, 192.0.2.7", X_Request_Id="mine")
    assert told(api)[-1].cause == Cause("key", ACCOUNT, "mine", KEY, "192.0.2.7")


async def test_a_session_that_the_server_ends_has_no_other_cause(api: Api) -> None:
    await api.session(ttl=300)
    api.clock.now += 301
    await api.keep(api.keeper())
    assert types(api)[-1] == "session.expired"
    assert told(api)[-1].cause == SERVER


async def test_a_request_that_is_refused_tells_of_nothing(api: Api) -> None:
    one = await api.session(name="ci")
    other = await api.account(name="two")
    before = types(api)
    assert (await api.call("POST", "/sessions/create", {"name": "ci"})).status == 409
    assert (await api.call("DELETE", f"/sessions/{one}", key=other)).status == 404
    assert (await api.call("DELETE", "/keys/key_none00000000")).status == 404
    assert types(api) == before


async def test_a_repeated_create_is_told_of_once(api: Api) -> None:
    for _ in range(2):
        assert (await api.call("POST", "/sessions/create", {}, Idempotency_Key="k")).status == 200
    assert types(api) == ["session.created"]


async def test_runs_that_fail_are_told_of_too(api: Api) -> None:
    one = await api.session()
    answer = await api.call("POST", "/execute", {"sessionId": one, "command": "exit 3"})
    event = told(api)[-1]
    assert (event.type, event.data["exitCode"], event.data["timedOut"]) == ("execution.completed", 3, False)
    assert answer.json["exitCode"] == 3


async def test_a_process_that_ends_is_told_of_once_and_nobody_caused_it(api: Api) -> None:
    one = await api.session()
    started = (await api.call("POST", "/processes/start", {"sessionId": one, "command": "sleep 9", "name": "job"})).json
    assert types(api) == ["session.created"]
    about = {"sessionId": one, "processId": started["processId"]}
    assert (await api.call("POST", "/processes/signal", {**about, "signal": "SIGKILL"})).status == 200
    await eventually(lambda: types(api) == ["session.created", "process.exited"])
    event = told(api)[-1]
    assert event.id == started["processId"].replace("proc_", "evt_")
    assert event.data == {"processId": started["processId"], "name": "job", "exitCode": 137, "reason": None}
    assert (event.account, event.session, event.cause) == (ACCOUNT, one, SERVER)


async def test_the_end_of_a_service_that_is_not_started_again_is_told_of(api: Api) -> None:
    one = await api.session(services=[{"name": "web", "command": "sleep 9"}])
    await eventually(lambda: bool(sandbox_of(api).services.all))
    sandbox_of(api).services.ends("web", 1)  # its rule starts it again
    assert types(api) == ["session.created"]
    await api.call("POST", f"/sessions/{one}/services/web/stop")
    await eventually(lambda: types(api) == ["session.created", "process.exited"])
    assert (told(api)[-1].data["name"], told(api)[-1].data["exitCode"]) == ("web", 143)


async def test_processes_that_end_with_their_session_are_not_told_of(api: Api) -> None:
    one = await api.session()
    await api.call("POST", "/processes/start", {"sessionId": one, "command": "sleep 9"})
    assert (await api.call("POST", f"/sessions/{one}/sleep", {"depth": "deep-sleep"})).status == 200
    await api.call("DELETE", f"/sessions/{one}")
    assert types(api) == ["session.created", "session.deep_sleep", "session.deleted"]


async def test_an_end_of_before_a_crash_is_stored_once(api: Api) -> None:
    one, stored = await api.session(), list[str]()
    telling = Telling(api.store, api.clock)
    ended = [Ended(f"proc_{number:018}", None, 0, None) for number in range(2)]
    await telling.exited(Exits(one, ended[:1], lambda: stored.append("first")))
    await telling.exited(Exits(one, ended, lambda: stored.append("again"), again=True))
    await telling.exited(Exits("ses_gone00000000000000", ended, lambda: stored.append("never")))
    assert [event.data["processId"] for event in told(api)[1:]] == [each.id for each in ended]
    assert stored == ["first", "again"]


async def test_snapshots_and_keys_are_told_of(api: Api) -> None:
    one = await api.session()
    made = (await api.call("POST", f"/sessions/{one}/snapshots", {"name": "base"})).json
    key = (await api.call("POST", "/keys/create", {"name": "ci", "scopes": ["account:read"]})).json
    await api.call("DELETE", f"/keys/{key['keyId']}")
    assert types(api)[1:] == ["snapshot.created", "key.created", "key.revoked"]
    snapshot, created, revoked = told(api)[1:]
    assert (snapshot.session, snapshot.data["snapshotId"], snapshot.data["name"]) == (one, made["snapshotId"], "base")
    assert created.data == {"keyId": key["keyId"], "name": "ci", "hint": key["hint"], "scopes": ["account:read"]}
    assert (revoked.data["keyId"], revoked.cause.key) == (key["keyId"], KEY)
    assert key["key"] not in repr(told(api))


async def test_the_keeper_drops_events_after_thirty_days(api: Api) -> None:
    one = await api.session()
    await api.call("DELETE", f"/sessions/{one}")
    kept = api.store.events[-1]
    api.store.events[0] = NumberedEvent(1, replace(kept.event, id="evt_old", time=int(START) - KEPT_SECONDS - 1))
    keeper = api.keeper()
    await api.keep(keeper)
    await eventually(lambda: api.store.events == [kept])
