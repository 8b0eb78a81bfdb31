"""Suspending and waking, over HTTP. The fake sandboxes fail a test that asks them something while they are frozen."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from buntime.account import AccountStatus
from buntime.errors import InvalidRequest
from buntime.lifecycle import leases
from buntime.ports import Observed, Run, RunResult, Sandbox
from buntime.session import Session, State
from buntime.testing.sandboxes import FakeSandbox, result
from tests.app.serving import Api, serving
from tests.waiting import eventually


def only_sandbox(api: Api) -> FakeSandbox:
    (sandbox,) = api.sandboxes.running.values()
    return sandbox


async def state_of(api: Api, session: str) -> str:
    shown = await api.call("GET", f"/sessions/{session}")
    state: str = shown.json["state"]
    return state


async def test_sleep_suspends_and_the_next_request_wakes(api: Api) -> None:
    session = await api.session()
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})
    assert (slept.status, slept.json["state"]) == (200, "idle")
    assert only_sandbox(api).frozen
    run = await api.call("POST", "/execute", {"sessionId": session, "command": "echo hi"})
    assert run.json["stdout"] == "hi\n"
    assert await state_of(api, session) == "active"


async def test_get_list_and_patch_do_not_wake_a_session(api: Api) -> None:
    session = await api.session()
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "x"})
    await api.call("POST", f"/sessions/{session}/sleep")
    assert (await api.call("GET", f"/sessions/{session}")).json["filesCount"] == 1
    assert (await api.call("GET", "/sessions?state=idle")).json["total"] == 1
    assert (await api.call("PATCH", f"/sessions/{session}", {"metadata": {"a": 1}})).json["state"] == "idle"
    assert only_sandbox(api).frozen


async def test_wake_tells_what_it_woke_from(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    woken = await api.call("POST", f"/sessions/{session}/wake")
    assert (woken.json["wokeFrom"], woken.json["state"]) == ("idle", "active")
    again = await api.call("POST", f"/sessions/{session}/wake")
    assert again.json["wokeFrom"] == "active"


async def test_an_unknown_depth_is_refused_by_name(api: Api) -> None:
    session = await api.session()
    refused = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "coma"})
    assert (refused.status, refused.json["error"]["details"]["field"]) == (400, "depth")


async def test_a_session_of_another_account_can_be_neither_suspended_nor_woken(api: Api) -> None:
    session, other = await api.session(), await api.account(name="two")
    for verb in ("sleep", "wake"):
        assert (await api.call("POST", f"/sessions/{session}/{verb}", key=other)).status == 404


async def test_a_request_in_flight_is_never_suspended() -> None:
    going, entered = asyncio.Event(), asyncio.Event()

    async def slow(run: Run, sandbox: FakeSandbox) -> RunResult:
        entered.set()
        await going.wait()
        assert not sandbox.frozen
        return result(b"done\n")

    async with serving(runner=slow) as api:
        session = await api.session()
        running = asyncio.create_task(api.call("POST", "/execute", {"sessionId": session, "command": "x"}))
        await entered.wait()
        busy = await api.call("POST", f"/sessions/{session}/sleep")
        assert (busy.status, busy.json["error"]["code"]) == (409, "session_busy")
        going.set()
        assert (await running).json["stdout"] == "done\n"
        assert (await api.call("POST", f"/sessions/{session}/sleep")).status == 200


async def test_many_requests_that_arrive_together_share_one_wake(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    sandbox, thaws = only_sandbox(api), 0
    thaw = sandbox.thaw

    async def counted() -> None:
        nonlocal thaws
        thaws += 1
        await asyncio.sleep(0.01)
        await thaw()

    sandbox.thaw = counted  # type: ignore[method-assign]
    runs = [api.call("POST", "/execute", {"sessionId": session, "command": f"echo {n}"}) for n in range(20)]
    assert [answer.json["stdout"] for answer in await asyncio.gather(*runs)] == [f"{n}\n" for n in range(20)]
    assert thaws == 1


async def test_requests_that_meet_a_suspension_wait_for_its_end_and_work(api: Api) -> None:
    session = await api.session()
    sandbox, freezing = only_sandbox(api), asyncio.Event()
    freeze = sandbox.freeze

    async def slow_freeze() -> bool:
        freezing.set()
        await asyncio.sleep(0.02)
        return await freeze()

    sandbox.freeze = slow_freeze  # type: ignore[method-assign]
    sleeping = asyncio.create_task(api.call("POST", f"/sessions/{session}/sleep"))
    await freezing.wait()
    run = await api.call("POST", "/execute", {"sessionId": session, "command": "echo on"})
    assert run.json["stdout"] == "on\n"
    assert (await sleeping).status == 200


async def test_a_session_that_does_not_freeze_stays_active(api: Api) -> None:
    session = await api.session()

    async def never() -> bool:
        return False

    only_sandbox(api).freeze = never  # type: ignore[method-assign]
    assert (await api.call("POST", f"/sessions/{session}/sleep")).status == 409
    assert await state_of(api, session) == "active"


async def test_a_suspended_session_can_be_deleted(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await eventually(lambda: not api.sandboxes.volumes)


async def test_the_keeper_suspends_only_sessions_that_were_quiet_for_long_enough(api: Api) -> None:
    quiet, busy = await api.session(), await api.session()
    api.clock.now += 299
    await api.call("POST", "/execute", {"sessionId": busy, "command": "echo"})
    api.clock.now += 1
    await api.keep(api.keeper(idle_after=300))
    assert await state_of(api, quiet) == "idle"
    assert await state_of(api, busy) == "active"


async def test_a_session_that_expires_while_suspended_goes(api: Api) -> None:
    session = await api.session(ttl=300)
    await api.call("POST", f"/sessions/{session}/sleep")
    api.clock.now += 300
    await api.keep(api.keeper())
    await eventually(lambda: not api.sandboxes.volumes)
    assert (await api.call("GET", f"/sessions/{session}")).status == 404


async def test_after_a_restart_an_idle_session_is_frozen_and_an_active_one_is_not(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    stored = await api.store.get_session(session)
    assert stored is not None
    sandbox = only_sandbox(api)
    sandbox.frozen = False
    await api.sandboxes.recover({stored.sandbox: stored})
    assert sandbox.frozen
    await api.sandboxes.recover({stored.sandbox: replace(stored, state=State.ACTIVE)})
    assert not sandbox.frozen


async def test_deep_sleep_gives_the_sandbox_back_and_keeps_the_files(api: Api) -> None:
    session = await api.session(onWake="echo up")
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "kept"})
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    assert (slept.status, slept.json["state"], slept.json["filesCount"]) == (200, "deep-sleep", 1)
    assert not api.sandboxes.running
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})).json["state"] == "deep-sleep"
    read = await api.call("GET", f"/files/read?sessionId={session}&path=a")
    assert read.json["content"] == "kept"
    assert await state_of(api, session) == "active"


async def test_a_woke_from_deep_sleep_runs_the_sessions_own_command_once(api_runs: tuple[Api, list[Run]]) -> None:
    api, runs = api_runs
    session = await api.session(onWake="bun start", env={"A": "1"})
    await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    woken = await api.call("POST", f"/sessions/{session}/wake")
    assert woken.json["wokeFrom"] == "deep-sleep"
    await eventually(lambda: runs)
    (run,) = runs
    assert "bun start" in (run.command or "")
    assert run.env == {"A": "1"}
    await api.call("POST", f"/sessions/{session}/sleep")
    await api.call("POST", f"/sessions/{session}/wake")
    assert len(runs) == 1, "onWake must not run after a suspension"


@pytest.fixture
async def api_runs() -> AsyncIterator[tuple[Api, list[Run]]]:
    runs: list[Run] = []

    async def note(run: Run, _: FakeSandbox) -> RunResult:
        runs.append(run)
        return result()

    async with serving(runner=note) as api:
        yield api, runs


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_on_wake_is_started_before_the_session_sleeps_again(depth: str) -> None:
    going, entered = asyncio.Event(), asyncio.Event()

    async def slow(run: Run, sandbox: FakeSandbox) -> RunResult:
        entered.set()
        await going.wait()
        assert not sandbox.frozen
        return result()

    async with serving(runner=slow) as api:
        session = await api.session(onWake="serve")
        await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
        await api.call("POST", f"/sessions/{session}/wake")
        await entered.wait()
        (sandbox,) = api.sandboxes.running.values()
        asleep = asyncio.create_task(api.call("POST", f"/sessions/{session}/sleep", {"depth": depth}))
        await asyncio.wait({asleep}, timeout=0.1)
        assert not asleep.done()
        assert not sandbox.frozen
        going.set()
        assert (await asleep).json["state"] == depth


async def test_the_keeper_goes_one_step_down_at_a_time(api: Api) -> None:
    session = await api.session()
    keeper = api.keeper(idle_after=300, deep_sleep_after=1800)
    api.clock.now += 1800
    await api.keep(keeper)
    assert await state_of(api, session) == "idle"
    await api.keep(keeper)
    assert await state_of(api, session) == "deep-sleep"
    assert not api.sandboxes.running


async def test_sessions_of_a_suspended_account_are_put_to_deep_sleep(api: Api) -> None:
    await api.session()
    (account,) = await api.store.list_accounts()
    await api.store.set_account_status(account.id, AccountStatus.SUSPENDED)
    await api.keep(api.keeper())
    assert not api.sandboxes.running
    (stored,) = await api.store.all_sessions()
    assert stored.state is State.DEEP_SLEEP


@pytest.fixture
async def uncountable(api: Api, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns a session whose guest refuses to report its counts from a certain moment on."""
    session = await api.session()
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "x"})
    assert (await api.call("GET", f"/sessions/{session}")).json["filesCount"] == 1

    async def observe(_: FakeSandbox) -> Observed:
        raise InvalidRequest("path", "'aaa'… is longer than the file system allows.")

    monkeypatch.setattr(FakeSandbox, "observe", observe)
    return session


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_session_that_cannot_be_counted_is_shown_as_last_seen_and_sleeps(
    api: Api, uncountable: str, depth: str
) -> None:
    shown = await api.call("GET", f"/sessions/{uncountable}")
    assert (shown.status, shown.json["filesCount"]) == (200, 1)
    slept = await api.call("POST", f"/sessions/{uncountable}/sleep", {"depth": depth})
    assert (slept.status, slept.json["state"], slept.json["filesCount"]) == (200, depth, 1)


async def test_the_keeper_puts_a_session_that_cannot_be_counted_to_sleep(api: Api, uncountable: str) -> None:
    keeper = api.keeper(idle_after=300, deep_sleep_after=1800)
    for state in (State.IDLE, State.DEEP_SLEEP):
        api.clock.now += 1800
        await api.keep(keeper)
        assert api.store.sessions[uncountable].state is state


async def test_a_session_that_cannot_be_counted_sleeps_with_its_suspended_account(api: Api, uncountable: str) -> None:
    account = api.store.sessions[uncountable].account
    await api.store.set_account_status(account, AccountStatus.SUSPENDED)
    await api.keep(api.keeper())
    assert api.store.sessions[uncountable].state is State.DEEP_SLEEP


async def test_a_session_in_deep_sleep_counts_as_one_of_the_plans_and_can_be_deleted(api: Api) -> None:
    key = await api.account("free", "two")
    made = [(await api.call("POST", "/sessions/create", key=key)).json["sessionId"] for _ in range(10)]
    await api.call("POST", f"/sessions/{made[0]}/sleep", {"depth": "deep-sleep"}, key=key)
    assert (await api.call("POST", "/sessions/create", key=key)).status == 429
    assert (await api.call("DELETE", f"/sessions/{made[0]}", key=key)).status == 200
    assert (await api.call("POST", "/sessions/create", key=key)).status == 200


async def test_a_delete_during_a_wake_leaves_nothing_running(api: Api) -> None:
    asleep = await api.session()
    await api.call("POST", f"/sessions/{asleep}/sleep", {"depth": "deep-sleep"})
    start, starting, go_on = api.sandboxes.start, asyncio.Event(), asyncio.Event()

    async def slow(session: Session) -> Sandbox:
        starting.set()
        await go_on.wait()
        return await start(session)

    api.sandboxes.start = slow  # type: ignore[method-assign]
    waking = asyncio.create_task(api.call("POST", f"/sessions/{asleep}/wake"))
    await starting.wait()
    deleting = asyncio.create_task(api.call("DELETE", f"/sessions/{asleep}"))
    await eventually(lambda: api.store.sessions[asleep].state is State.DELETING)
    go_on.set()
    assert (await deleting).status == 200
    assert (await waking).status == 404
    await eventually(lambda: not api.sandboxes.volumes)
    assert not api.sandboxes.running


async def test_a_request_that_stops_waiting_for_a_wake_has_done_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAKE_SECONDS", 0.02)
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    sandbox, going = only_sandbox(api), asyncio.Event()
    thaw = sandbox.thaw

    async def slow_thaw() -> None:
        await going.wait()
        await thaw()

    sandbox.thaw = slow_thaw  # type: ignore[method-assign]
    refused = await api.call("POST", "/execute", {"sessionId": session, "command": "echo x > made"})
    assert refused.refusal == (503, "unavailable")
    assert refused.error["details"] == {"retryAfter": 1, "waking": True}
    going.set()
    await eventually(lambda: not sandbox.frozen)
    assert (await api.call("GET", f"/files/list?sessionId={session}")).json["total"] == 0


async def test_a_session_that_was_woken_on_demand_stays_awake_for_as_long_as_after_any_request(api: Api) -> None:
    session = await api.session(ttl=36_000)
    keeper = api.keeper(idle_after=300, deep_sleep_after=1800)
    for depth in ("idle", "deep-sleep"):
        await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
        api.clock.now += 7200
        assert (await api.call("POST", f"/sessions/{session}/wake")).json["state"] == "active"
        api.clock.now += 299
        await api.keep(keeper)
        assert await state_of(api, session) == "active"
    api.clock.now += 1
    await api.keep(keeper)
    assert await state_of(api, session) == "idle"
