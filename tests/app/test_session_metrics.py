"""What a session did over time, and what all do now, by the API on fakes and a clock that tests move."""

from itertools import pairwise
from typing import Any

from buntime.lifecycle.keeper import Keeper
from buntime.scope import Scope
from buntime.session import State
from buntime.testing.sandboxes import FakeSandbox
from tests.app.serving import Api
from tests.app.sleeping import deep_sleep, stored_of

MB = 1 << 20
NEVER = float("inf")


async def sandbox_of(api: Api, session: str) -> FakeSandbox:
    return api.sandboxes.running[(await stored_of(api, session)).sandbox]


async def pass_time(api: Api, keeper: Keeper, seconds: int, **each_second: int) -> None:
    """Ticks once a second. `each_second`: what each sandbox that is not frozen uses."""
    for _ in range(seconds):
        api.clock.now += 1
        for sandbox in api.sandboxes.running.values():
            if not sandbox.frozen:
                for name, amount in each_second.items():
                    setattr(sandbox, name, getattr(sandbox, name) + amount)
        await api.keep(keeper)


async def metrics(api: Api, session: str, query: str = "") -> Any:
    answer = await api.call("GET", f"/sessions/{session}/metrics{query}")
    assert answer.status == 200, answer.body
    return answer.json


async def latest(api: Api, query: str = "") -> Any:
    answer = await api.call("GET", f"/metrics/sessions{query}")
    assert answer.status == 200, answer.body
    return answer.json


async def awake(api: Api) -> tuple[str, Keeper]:
    session, keeper = await api.session(), api.keeper(idle_after=NEVER, deep_sleep_after=NEVER)
    await api.keep(keeper)
    return session, keeper


async def test_an_active_session_has_a_point_every_ten_seconds(api: Api) -> None:
    session, keeper = await awake(api)
    (await sandbox_of(api, session)).memory = 64 * MB
    await pass_time(api, keeper, 120, cpu=500_000, bytes_in=1000, bytes_out=100)
    told = await metrics(api, session)
    assert told["step"] == 10
    points = told["points"]
    assert 10 <= len(points) <= 12
    assert len({point["time"] for point in points}) == len(points)
    for point in points[1:]:
        assert (point["cpu"], point["cpuMax"]) == (0.5, 0.5)
        assert (point["memory"], point["memoryMax"]) == (64 * MB, 64 * MB)
        assert (point["bytesIn"], point["bytesInMax"]) == (1000 * point["seconds"], 1000)
        assert (point["bytesOut"], point["bytesOutMax"]) == (100 * point["seconds"], 100)
    assert sum(point["seconds"] for point in points) >= 105


async def test_steps_add_up_what_is_within_them_and_show_its_peak(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 60, cpu=100_000)
    await pass_time(api, keeper, 60, cpu=1_000_000)
    fine, coarse = await metrics(api, session), await metrics(api, session, "?step=600")
    assert coarse["step"] == 600
    (point,) = coarse["points"]
    assert point["seconds"] == sum(one["seconds"] for one in fine["points"])
    assert point["cpuMax"] == 1
    assert 0.4 < point["cpu"] < 0.7


async def test_a_sleep_is_a_gap_and_nothing_is_read_or_written_in_it(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 60)
    assert await api.lifecycle.transitions.suspend(session)
    await pass_time(api, keeper, 5)
    before = dict(api.history.measurements[session])
    await pass_time(api, keeper, 300)
    assert api.history.measurements[session] == before
    await api.lifecycle.leases.wake(session)
    await pass_time(api, keeper, 60)
    assert max(later - earlier for earlier, later in pairwise(api.history.measurements[session])) >= 29
    told = await metrics(api, session, "?step=60")
    assert len(told["points"]) <= 5
    assert sum(point["seconds"] for point in told["points"]) <= 125


async def test_what_a_session_did_just_before_its_suspension_is_measured(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 20)
    await pass_time(api, keeper, 4, bytes_in=5 * MB)
    assert await api.lifecycle.transitions.suspend(session)
    await pass_time(api, keeper, 2)
    assert sum(point["bytesIn"] for point in (await metrics(api, session))["points"]) == 20 * MB


async def test_a_new_sandbox_counts_anew_and_no_rate_is_negative(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 60, cpu=1_000_000, bytes_in=MB)
    await deep_sleep(api, session)
    await pass_time(api, keeper, 30)
    await api.lifecycle.leases.wake(session)
    (await sandbox_of(api, session)).cpu = 777_000_000  # of another session, before
    await pass_time(api, keeper, 60, cpu=1_000_000, bytes_in=MB)
    points = (await metrics(api, session))["points"]
    assert all(0.9 <= point["cpu"] <= 1 for point in points if point["seconds"] == 10)
    assert all(point["cpuMax"] <= 1.2 for point in points)
    assert 80 * MB <= sum(point["bytesIn"] for point in points) <= 120 * MB


async def test_the_history_stays_through_deep_sleep(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 60, cpu=1_000_000)
    before = (await metrics(api, session))["points"]
    await deep_sleep(api, session)
    await pass_time(api, keeper, 30)
    assert (await metrics(api, session))["points"] == before


async def test_reading_neither_wakes_nor_is_activity(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 30)
    await deep_sleep(api, session)
    before = await stored_of(api, session)
    api.clock.now += 5
    assert (await metrics(api, session))["points"]
    assert (await latest(api))["sessions"][0]["state"] == "deep-sleep"
    after = await stored_of(api, session)
    assert after == before
    assert after.state is State.DEEP_SLEEP


async def test_a_deletion_removes_the_history(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 30)
    assert api.history.measurements[session]
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await pass_time(api, keeper, 30)
    assert session not in api.history.measurements
    assert (await api.call("GET", f"/sessions/{session}/metrics")).refusal == (404, "session_not_found")


async def test_another_account_finds_neither_the_session_nor_what_it_does(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 30)
    other = await api.account(name="two")
    assert (await api.call("GET", f"/sessions/{session}/metrics", key=other)).refusal == (404, "session_not_found")
    assert (await api.call("GET", "/metrics/sessions", key=other)).json == {"sessions": [], "total": 0}


async def test_a_week_is_shown_in_steps_of_five_minutes(api: Api) -> None:
    session = await api.session(ttl=604_800)
    keeper = api.keeper(idle_after=NEVER, deep_sleep_after=NEVER)
    for _ in range(600):  # a server that ticks rarely
        api.clock.now += 300
        await api.keep(keeper)
    week = await metrics(api, session, "?from=2024-01-01T00:00:00Z&step=10")
    assert week["step"] == 300
    assert len(week["points"]) > 550
    day = await metrics(api, session, "?from=2024-01-21T10:30:00Z&step=10")
    assert day["step"] == 10
    assert day["points"]


async def test_a_page_of_sessions_has_the_newest_measurement_of_those_that_are_awake(api: Api) -> None:
    first, keeper = await awake(api)
    api.clock.now += 5
    second = await api.session(name="build", metadata={"team": "web"})
    await pass_time(api, keeper, 30, cpu=250_000, bytes_out=10)
    assert all(one["metrics"] for one in (await latest(api))["sessions"])
    await deep_sleep(api, first)
    told = await latest(api)
    assert told["total"] == 2
    newest, oldest = told["sessions"]
    assert (newest["sessionId"], newest["name"], newest["state"]) == (second, "build", "active")
    assert newest["metrics"]["cpu"] == 0.25
    assert newest["metrics"]["bytesOut"] == 10 * newest["metrics"]["seconds"]
    assert (oldest["sessionId"], oldest["state"], oldest["metrics"]) == (first, "deep-sleep", None)
    assert [one["sessionId"] for one in (await latest(api, "?state=active"))["sessions"]] == [second]
    assert [one["sessionId"] for one in (await latest(api, "?metadata.team=web"))["sessions"]] == [second]
    assert [one["sessionId"] for one in (await latest(api, "?limit=1&offset=1"))["sessions"]] == [first]
    assert (await latest(api, "?name=none"))["total"] == 0


async def test_bounds_are_refused_by_name(api: Api) -> None:
    session = await api.session()
    for query, field in (
        ("from=yesterday", "from"),
        ("to=2024-01-19T10:30:00", "to"),
        ("from=2024-01-19T10:30:00Z&to=2024-01-19T10:30:00Z", "from"),
        ("from=2034-01-19T10:30:00Z", "from"),
        ("step=0", "step"),
        ("step=604801", "step"),
        ("step=ten", "step"),
        ("every=10", "every"),
    ):
        answer = await api.call("GET", f"/sessions/{session}/metrics?{query}")
        assert answer.refusal == (400, "invalid_request"), query
        assert answer.error["details"]["field"] == field
    for query in ("limit=1001", "limit=0", "offset=-1", "state=asleep"):
        assert (await api.call("GET", f"/metrics/sessions?{query}")).status == 400, query


async def test_times_may_have_any_zone_and_fractions(api: Api) -> None:
    session, keeper = await awake(api)
    await pass_time(api, keeper, 60)
    told = await metrics(api, session, "?from=2024-01-19T11:30:00.5%2B01:00&to=2024-01-19T10:30:30Z")
    assert (told["from"], told["to"]) == ("2024-01-19T10:30:00Z", "2024-01-19T10:30:30Z")


async def test_a_key_that_may_only_use_sessions_does_not_see_their_metrics(api: Api) -> None:
    session = await api.session()
    key = await api.key_with(Scope.SESSIONS_WRITE)
    assert (await api.call("GET", f"/sessions/{session}/metrics", key=key)).refusal == (403, "forbidden")


async def test_many_sessions_are_measured_at_different_times(api: Api) -> None:
    keeper = api.keeper(idle_after=NEVER, deep_sleep_after=NEVER)
    sessions = [await api.session() for _ in range(40)]
    await pass_time(api, keeper, 30)
    seconds = {max(one.at for one in api.history.measurements[session].values()) % 10 for session in sessions}
    assert len(seconds) >= 4
