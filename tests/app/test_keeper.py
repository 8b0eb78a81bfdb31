"""The keeper continues whatever a session or the clock does."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from buntime.account import AccountStatus
from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import MayNotAct, Unavailable
from buntime.lifecycle import observations
from buntime.lifecycle.keeper import ENDS_A_TICK, HOLD_SECONDS, Keeper, Pace
from buntime.ports import Observed, Run, RunResult
from buntime.session import Session, State
from buntime.testing.sandboxes import FakeSandbox, small_shell
from tests.app.serving import Api, Clock
from tests.app.sleeping import content_of, deep_sleep, write
from tests.waiting import eventually

DAY = 86_400.0


async def test_a_session_that_makes_its_suspension_fail_does_not_end_the_keeper(api: Api) -> None:
    bad, good = await api.session(), await api.session()
    broken = await _sandbox(api, bad)

    async def freeze() -> bool:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    broken.freeze = freeze  # type: ignore[method-assign]
    api.clock.now += 300
    await api.keep(api.keeper(idle_after=300))
    assert await _states(api, good, bad) == [State.IDLE, State.ACTIVE]


@pytest.mark.parametrize("state", [State.ACTIVE, State.IDLE])
@pytest.mark.parametrize("idle_after", [300, math.inf])
async def test_a_session_whose_sandbox_ended_is_in_deep_sleep_archived_and_not_billed_as_awake(
    api: Api, idle_after: float, state: State
) -> None:
    session, keeper = await api.session(), api.keeper(idle_after=idle_after, deep_sleep_after=math.inf)
    await write(api, session, "kept")
    await api.call("GET", f"/sessions/{session}")  # counts its files
    if state is State.IDLE:
        await api.call("POST", f"/sessions/{session}/sleep")
    await _pass_time(api, keeper, 120)
    await api.sandboxes.kill(api.store.sessions[session].sandbox)
    await _pass_time(api, keeper, 300)
    assert await _states(api, session) == [State.DEEP_SLEEP]
    assert api.store.sessions[session].files == 1
    await eventually(lambda: api.store.sessions[session].archived)
    told = (await api.call("GET", "/usage")).json["total"]
    assert 60 <= told["active"] + told["idle"] <= 120
    assert await content_of(api, session) == "kept"
    assert await _states(api, session) == [State.ACTIVE]


async def test_an_ended_sandbox_is_replaced_where_a_request_uses_the_session(api: Api) -> None:
    session = await api.session()
    await api.sandboxes.kill(api.store.sessions[session].sandbox)
    with api.lifecycle.holds.held(session):
        assert not await api.lifecycle.transitions.settle_ended(session)
        assert not await api.lifecycle.transitions.suspend(session)
        assert await _states(api, session) == [State.ACTIVE]
    await api.sandboxes.destroy(api.store.sessions[session])
    assert await api.lifecycle.transitions.suspend(session)
    stored = api.store.sessions[session]
    assert (stored.state, stored.archived) == (State.DEEP_SLEEP, True), "it has lost its files, which its wake tells"


async def test_a_host_that_may_not_act_for_a_moment_forgets_no_deadline(api: Api) -> None:
    session, keeper = await api.session(), api.keeper(idle_after=300)
    await api.keep(keeper)
    api.clock.now += 300
    api.owners.acts = False
    with pytest.raises(MayNotAct):
        await keeper.tick()
    api.owners.acts = True
    await api.keep(keeper)
    assert await _states(api, session) == [State.IDLE]


async def test_a_session_whose_on_wake_hangs_keeps_no_other_awake(api: Api) -> None:
    hung, good = await api.session(onWake="serve"), await api.session()
    await api.call("POST", f"/sessions/{hung}/sleep", {"depth": "deep-sleep"})
    ended = asyncio.Event()

    async def hang(run: Run, sandbox: FakeSandbox) -> RunResult:
        await ended.wait()
        return await small_shell(run, sandbox)

    api.sandboxes._runner = hang
    await api.call("POST", f"/sessions/{hung}/wake")
    api.clock.now += 300
    keeper = api.keeper(idle_after=300)
    await api.keep(keeper)
    assert await _states(api, hung, good) == [State.ACTIVE, State.IDLE]
    ended.set()
    for _ in range(2):
        api.clock.now += 300
        await api.keep(keeper)
    assert await _states(api, hung) == [State.IDLE]


@pytest.mark.parametrize("slow", ["observe", "freeze"])
async def test_sessions_that_are_slow_to_suspend_delay_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    monkeypatch.setattr(observations, "OBSERVE_SECONDS", 30.0)
    stuck, answers = [await api.session() for _ in range(5)], asyncio.Event()
    api.clock.now += 1
    good = await api.session()

    async def silent(*_: object) -> object:
        await answers.wait()
        return Observed(0, 0) if slow == "observe" else False

    for session in stuck:
        setattr(await _sandbox(api, session), slow, silent)
    api.clock.now += 300
    keeper = api.keeper(idle_after=300)
    await keeper.tick()
    await eventually(lambda: api.store.sessions[good].state is State.IDLE, seconds=10)
    assert await _states(api, *stuck) == [State.ACTIVE] * 5
    answers.set()
    await eventually(lambda: keeper.at_rest)


@pytest.mark.parametrize("call", ["changed_sessions", "inactive_accounts", "get_session", "get_account"])
async def test_a_store_that_is_away_for_a_while_delays_what_is_due_and_loses_nothing(api: Api, call: str) -> None:
    quiet = await api.session(ttl=3600, sleepPolicy={"idleAfter": 200})
    ends = await api.session(ttl=300)
    works, failures = getattr(api.store, call), 0

    async def away(*arguments: object) -> object:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise Unavailable("away")
        return await works(*arguments)

    setattr(api.store, call, away)
    keeper = api.keeper(tick=0.01, idle_after=300)
    api.clock.now += 300
    running = asyncio.create_task(keeper.run())
    try:
        await eventually(lambda: failures == 3 and api.store.sessions[quiet].state is State.IDLE)
        await eventually(lambda: ends not in api.store.sessions)
    finally:
        await cancel_and_wait(running)


async def test_a_failed_step_is_tried_for_ever_with_growing_waits(api: Api) -> None:
    session, asked = await api.session(), list[float]()
    sandbox = await _sandbox(api, session)

    async def never() -> bool:
        asked.append(api.clock.now)
        return False

    freeze, sandbox.freeze = sandbox.freeze, never  # type: ignore[method-assign]
    keeper = api.keeper(tick=1.0, idle_after=300, deep_sleep_after=DAY)
    api.clock.now += 300
    started = api.clock.now
    for _ in range(2000):
        await api.keep(keeper)
        api.clock.now += 1
    assert [at - started for at in asked[:5]] == [0, 1, 3, 7, 15]
    assert max(later - earlier for earlier, later in pairwise(asked)) == 600
    sandbox.freeze = freeze  # type: ignore[method-assign]
    for _ in range(600):
        await api.keep(keeper)
        api.clock.now += 1
    assert await _states(api, session) == [State.IDLE]


async def test_sessions_that_expire_together_end_a_few_at_a_time_and_delay_nobody(api: Api) -> None:
    for _ in range(2 * ENDS_A_TICK + 5):
        await api.session(ttl=300)
    quiet = await api.session(ttl=3600)
    api.clock.now += 300
    keeper, left = api.keeper(idle_after=300), list[int]()
    for _ in range(4):
        await api.keep(keeper)
        await eventually(lambda: all(session.state is not State.DELETING for session in api.store.sessions.values()))
        left.append(len(api.store.sessions))
    assert left == [ENDS_A_TICK + 6, 6, 1, 1]
    assert await _states(api, quiet) == [State.IDLE]
    assert list(api.store.sessions) == [quiet]


async def test_a_tick_with_nothing_due_reads_no_session(api: Api) -> None:
    for _ in range(30):
        await api.session()
    keeper, asked = api.keeper(), 0
    await api.keep(keeper)
    get_session = api.store.get_session

    async def counted(session_id: str) -> Session | None:
        nonlocal asked
        asked += 1
        return await get_session(session_id)

    api.store.get_session = counted  # type: ignore[method-assign]
    for _ in range(100):
        api.clock.now += 1
        await api.keep(keeper)
    assert asked == 0


async def test_the_keeper_sees_late_activity_when_a_deadline_comes(api: Api) -> None:
    session = await api.session()
    keeper = api.keeper(idle_after=300)
    await api.keep(keeper)
    for _ in range(10):
        api.clock.now += 200
        await api.call("POST", "/execute", {"sessionId": session, "command": "echo"})
        await api.keep(keeper)
        assert await _states(api, session) == [State.ACTIVE]
    api.clock.now += 300
    await api.keep(keeper)
    assert await _states(api, session) == [State.IDLE]


async def test_a_changed_ttl_takes_effect(api: Api) -> None:
    longer, shorter = await api.session(ttl=600), await api.session(ttl=3600)
    keeper = api.keeper()
    await api.keep(keeper)
    await api.call("PATCH", f"/sessions/{longer}", {"ttl": 3600})
    await api.call("PATCH", f"/sessions/{shorter}", {"ttl": 600})
    api.clock.now += 601
    await _keep(api, keeper, 3)
    assert list(api.store.sessions) == [longer]


# --- the clock ---


class Times:
    """The server's clock and the real time. A step moves both; setting the clock moves only the clock."""

    def __init__(self, api: Api) -> None:
        self.clock, self.steady = api.clock, Clock(1000.0)

    def pass_by(self, seconds: float) -> None:
        self.clock.now += seconds
        self.steady.now += seconds

    def set_by(self, seconds: float) -> None:
        self.clock.now += seconds

    def keeper(self, api: Api, **pace: Any) -> Keeper:
        steady: Callable[[], float] = self.steady
        parts = (api.store, api.sandboxes, api.lifecycle, api.owners, api.tasks)
        return Keeper(*parts, self.clock, Pace(**pace), steady)


async def test_a_clock_that_is_set_forward_suspends_and_expires_nobody_at_once(api: Api) -> None:
    session, times = await api.session(ttl=3600), Times(api)
    suspended = await api.session(ttl=36_000)
    await api.call("POST", f"/sessions/{suspended}/sleep")
    keeper = times.keeper(api, idle_after=300, deep_sleep_after=1800)
    await api.keep(keeper)
    with capture_logs() as logs:
        times.set_by(3600)
        await _keep(api, keeper, 3)
    assert [entry["seconds"] for entry in logs if entry["event"] == "clock_was_set"] == [3600]
    assert await _states(api, session, suspended) == [State.ACTIVE, State.IDLE]
    times.pass_by(HOLD_SECONDS - 1)
    await _keep(api, keeper, 2)
    assert await _states(api, session) == [State.ACTIVE]
    times.pass_by(1)
    await _keep(api, keeper, 3)
    assert list(api.store.sessions) == [suspended], "an expired session must stay expired"
    times.pass_by(1800 - HOLD_SECONDS)
    await _keep(api, keeper, 2)
    assert await _states(api, suspended) == [State.DEEP_SLEEP], "the set clock must not delay deep sleep"


async def test_a_clock_that_is_set_forward_and_back_ends_nobodys_session(api: Api) -> None:
    session, times = await api.session(ttl=3600), Times(api)
    keeper = times.keeper(api, idle_after=300)
    await api.keep(keeper)
    times.set_by(DAY)
    await _keep(api, keeper, 2)
    assert (await api.call("GET", f"/sessions/{session}")).status == 404, "by this clock it has expired"
    times.pass_by(30)
    await _keep(api, keeper, 2)
    times.set_by(-DAY)
    await _keep(api, keeper, 2)
    assert (await api.call("GET", f"/sessions/{session}")).json["state"] == "active"
    times.pass_by(3600)
    await _keep(api, keeper, 3)
    assert not api.store.sessions


async def test_a_clock_that_is_set_back_makes_nothing_happen_early(api: Api) -> None:
    session, times = await api.session(ttl=3600), Times(api)
    keeper = times.keeper(api, idle_after=300)
    await api.keep(keeper)
    times.set_by(-DAY)
    for _ in range(10):
        times.pass_by(30)
        await api.keep(keeper)
    assert await _states(api, session) == [State.ACTIVE]
    times.set_by(DAY)
    await api.keep(keeper)
    assert await _states(api, session) == [State.ACTIVE]


@pytest.mark.parametrize("starts_wrong", [False, True])
async def test_a_clock_that_is_set_forward_by_years_drops_no_usage_and_no_event(api: Api, starts_wrong: bool) -> None:
    session, times = await api.session(ttl=3600), Times(api)
    api.clock.now += 10
    await deep_sleep(api, session)
    await api.call("DELETE", f"/sessions/{session}")
    keeper = times.keeper(api)
    if not starts_wrong:
        await api.keep(keeper)
    times.set_by(2 * 365 * DAY)
    keeper = times.keeper(api) if starts_wrong else keeper
    for _ in range(20):
        times.pass_by(1)
        await api.keep(keeper)
    times.set_by(-2 * 365 * DAY)
    await _keep(api, keeper, 2)
    told = (await api.call("GET", "/usage/windows")).json["windows"]
    assert (told[0]["sessionId"], told[0]["active"]) == (session, 10)
    assert (await api.call("GET", "/usage")).json["total"]["active"] == 10
    assert "session.deep_sleep" in [event["type"] for event in (await api.call("GET", "/events")).json["events"]]


async def test_while_the_clock_may_be_set_back_nothing_old_is_dropped(api: Api) -> None:
    session, times = await api.session(ttl=3600), Times(api)
    api.clock.now += 10
    await deep_sleep(api, session)
    keeper = times.keeper(api)
    await api.keep(keeper)
    times.set_by(2 * 365 * DAY)
    await api.call("DELETE", f"/sessions/{await api.session()}")  # its window ends in two years
    times.pass_by(HOLD_SECONDS - 1)
    await _keep(api, keeper, 2)
    times.set_by(-2 * 365 * DAY)
    await _keep(api, keeper, 2)
    assert (await api.call("GET", "/usage/windows")).json["windows"][0]["sessionId"] == session


async def test_a_clock_that_is_right_drops_usage_after_13_months_and_events_after_30_days(api: Api) -> None:
    session, keeper = await api.session(ttl=3600), api.keeper()
    api.clock.now += 10
    await deep_sleep(api, session)
    await api.call("DELETE", f"/sessions/{session}")
    api.clock.now += 428 * DAY
    again = await api.session()
    await deep_sleep(api, again)
    await api.keep(keeper)
    told = (await api.call("GET", "/usage/windows")).json["windows"]
    assert {window["sessionId"] for window in told} == {again}
    assert {event["sessionId"] for event in (await api.call("GET", "/events")).json["events"]} == {again}


# --- accounts ---


async def test_sessions_of_a_deleted_account_are_removed_with_their_archive_objects(api: Api) -> None:
    awake, asleep = await api.session(), await api.session()
    await api.call("POST", f"/sessions/{asleep}/sleep", {"depth": "deep-sleep"})
    assert api.archive.objects
    (account,) = await api.store.list_accounts()
    await api.store.set_account_status(account.id, AccountStatus.DELETED)
    await api.keep(api.keeper())
    await eventually(lambda: not {awake, asleep} & set(api.store.sessions))
    assert not api.sandboxes.volumes
    assert not api.archive.objects


async def test_active_sessions_of_a_suspended_account_go_to_sleep_and_stay_asleep(api: Api) -> None:
    active, suspended = await api.session(), await api.session()
    await api.call("POST", f"/sessions/{suspended}/sleep")
    (account,) = await api.store.list_accounts()
    await api.store.set_account_status(account.id, AccountStatus.SUSPENDED)
    keeper = api.keeper()
    await api.keep(keeper)
    assert await _states(api, active, suspended) == [State.DEEP_SLEEP] * 2
    assert (await api.call("POST", f"/sessions/{active}/wake")).refusal == (403, "forbidden")
    await api.store.set_account_status(account.id, AccountStatus.ACTIVE)
    await api.keep(keeper)
    assert (await api.call("POST", f"/sessions/{active}/wake")).json["state"] == "active"


async def test_accounts_without_sessions_cost_no_question_in_each_tick(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        await api.account(name=f"gone{number:02}")
        status = AccountStatus.DELETED if number % 2 else AccountStatus.SUSPENDED
        await api.store.set_account_status(f"acc_gone{number:02}0000000000", status)
    asked, read = list[str](), api.store.account_sessions

    async def counted(account_id: str) -> Sequence[Session]:
        asked.append(account_id)
        return await read(account_id)

    monkeypatch.setattr(api.store, "account_sessions", counted)
    keeper = api.keeper()
    await _keep(api, keeper, 5)
    assert len(asked) == 50
    late = replace(api.store.sessions[await api.session()], id="ses_late", account="acc_gone010000000000")
    await api.store.add_session(late, None, 9)
    await _keep(api, keeper, 2)
    assert "ses_late" not in api.store.sessions


async def _keep(api: Api, keeper: Keeper, ticks: int) -> None:
    for _ in range(ticks):
        await api.keep(keeper)


async def _pass_time(api: Api, keeper: Keeper, seconds: int) -> None:
    for _ in range(seconds // 10):
        api.clock.now += 10
        await api.keep(keeper)


async def _states(api: Api, *sessions: str) -> list[State]:
    return [api.store.sessions[session].state for session in sessions]


async def _sandbox(api: Api, session_id: str) -> FakeSandbox:
    return api.sandboxes.running[api.store.sessions[session_id].sandbox]
