"""A session whose own processes work stays awake if its policy says so. The counters are the kernel's, here fake."""

from collections.abc import Mapping, Sequence

import pytest

from buntime.lifecycle.keeper import Keeper
from buntime.lifecycle.working import LONGEST_LOOK
from buntime.ports import Worked
from buntime.session import Session, State
from buntime.testing.sandboxes import FakeSandbox
from tests.app.serving import Api
from tests.app.sleeping import stored_of

WORKING = {"sleepPolicy": {"awakeWhile": "processes"}}
IDLE_AFTER = 300


@pytest.fixture
def keeper(api: Api) -> Keeper:
    return api.keeper(idle_after=IDLE_AFTER, deep_sleep_after=86_400)


async def sandbox_of(api: Api, session: str) -> FakeSandbox | None:
    return api.sandboxes.running.get((await stored_of(api, session)).sandbox)


async def state(api: Api, session: str) -> State:
    return (await stored_of(api, session)).state


async def live(
    api: Api, keeper: Keeper, session: str, seconds: int, cpu: float = 0.0, received: int = 0, sent: int = 0
) -> None:
    """The keeper ticks once a second. Meanwhile the session uses this share of a core, and bytes a second."""
    for _ in range(seconds):
        await api.keep(keeper)
        api.clock.now += 1
        if (sandbox := await sandbox_of(api, session)) is not None and not sandbox.frozen:
            sandbox.cpu += round(cpu * 1e6)
            sandbox.bytes_in += received
            sandbox.bytes_out += sent
    await api.keep(keeper)


@pytest.mark.parametrize("does", [{"cpu": 0.25}, {"cpu": 0.03}, {"received": 4000}, {"sent": 4000}])
async def test_a_session_that_works_stays_awake_until_its_work_ends(
    api: Api, keeper: Keeper, does: dict[str, float]
) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, 4 * IDLE_AFTER, **does)  # type: ignore[arg-type]
    assert await state(api, session) is State.ACTIVE
    seen = (await api.call("GET", f"/sessions/{session}")).json
    assert seen["lastActive"] > "2024-01-19T10:48:00Z", "its work is activity"
    await live(api, keeper, session, IDLE_AFTER + 2 * int(LONGEST_LOOK))
    assert await state(api, session) is State.IDLE


@pytest.mark.parametrize("does", [{}, {"cpu": 0.01}, {"received": 200, "sent": 200}])
async def test_a_session_that_hardly_does_anything_sleeps_when_it_is_time(
    api: Api, keeper: Keeper, does: dict[str, float]
) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, IDLE_AFTER + 2, **does)  # type: ignore[arg-type]
    assert await state(api, session) is State.IDLE


async def test_work_keeps_a_session_awake_only_if_its_policy_says_so(api: Api, keeper: Keeper) -> None:
    session = await api.session()
    await live(api, keeper, session, IDLE_AFTER + 2, cpu=1.0)
    assert await state(api, session) is State.IDLE


async def test_a_minute_of_work_in_the_wait_is_enough(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, 100)
    await live(api, keeper, session, 10, cpu=1.0)
    await live(api, keeper, session, IDLE_AFTER - 10)
    assert await state(api, session) is State.ACTIVE
    await live(api, keeper, session, 90)
    assert await state(api, session) is State.IDLE


async def test_work_that_has_just_begun_keeps_it_awake(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, IDLE_AFTER - 5)
    await live(api, keeper, session, 20, cpu=1.0)
    assert await state(api, session) is State.ACTIVE


@pytest.mark.parametrize("idle_after", [5, 10, 30])
async def test_a_short_wait_is_measured_by_more_frequent_looks(api: Api, keeper: Keeper, idle_after: int) -> None:
    session = await api.session(sleepPolicy={"awakeWhile": "processes", "idleAfter": idle_after})
    await live(api, keeper, session, 10 * idle_after, cpu=0.1)
    assert await state(api, session) is State.ACTIVE
    await live(api, keeper, session, 2 * idle_after + 1)
    assert await state(api, session) is State.IDLE


async def test_a_new_server_suspends_nothing_before_it_has_looked_twice(api: Api) -> None:
    session = await api.session(**WORKING)
    api.clock.now += 10_000  # while no server ran
    keeper = api.keeper(idle_after=IDLE_AFTER, deep_sleep_after=86_400)
    await live(api, keeper, session, 3 * int(LONGEST_LOOK), cpu=0.2)
    assert await state(api, session) is State.ACTIVE


async def test_a_new_server_suspends_what_rests(api: Api) -> None:
    session = await api.session(**WORKING)
    api.clock.now += 10_000
    keeper = api.keeper(idle_after=IDLE_AFTER, deep_sleep_after=86_400)
    await live(api, keeper, session, int(LONGEST_LOOK) + 2)
    assert await state(api, session) is State.IDLE


async def test_what_a_sandbox_counted_before_it_was_suspended_is_not_work_after_it(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, 200, cpu=1.0)
    assert (await api.call("POST", f"/sessions/{session}/sleep")).json["state"] == "idle"
    await live(api, keeper, session, 1000)
    assert await state(api, session) is State.IDLE
    assert (await api.call("POST", f"/sessions/{session}/wake")).json["state"] == "active"
    await live(api, keeper, session, IDLE_AFTER + 2)
    assert await state(api, session) is State.IDLE


async def test_another_sandbox_that_counts_from_0_is_not_compared_with_the_first(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, 200, cpu=1.0)
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})).status == 200
    assert (await api.call("POST", f"/sessions/{session}/wake")).json["state"] == "active"
    await live(api, keeper, session, IDLE_AFTER, cpu=0.2)
    assert await state(api, session) is State.ACTIVE
    await live(api, keeper, session, IDLE_AFTER + 90)
    assert await state(api, session) is State.IDLE


async def test_a_changed_policy_ends_the_looks(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, IDLE_AFTER, cpu=1.0)
    assert (await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": None})).status == 200
    await live(api, keeper, session, IDLE_AFTER + 70, cpu=1.0)
    assert await state(api, session) is State.IDLE


async def test_only_sessions_that_asked_for_it_are_looked_at_and_only_while_they_are_awake(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        await api.session()
    working = await api.session(**WORKING)
    looked, worked = list[str](), api.sandboxes.worked

    async def counted(sessions: Sequence[Session]) -> Mapping[str, Worked]:
        looked.extend(session.id for session in sessions)
        return await worked(sessions)

    monkeypatch.setattr(api.sandboxes, "worked", counted)
    await live(api, keeper, working, 200)
    assert set(looked) == {working}
    assert len(looked) == 3, "one look a minute"
    await live(api, keeper, working, 200)
    assert await state(api, working) is State.IDLE
    looked.clear()
    await live(api, keeper, working, 200)
    assert not looked


async def test_a_session_that_was_deleted_is_forgotten(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await live(api, keeper, session, 70)
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await api.keep(keeper)
    assert not api.lifecycle.working._sessions
    assert not api.lifecycle.working._looks


async def test_a_session_whose_sandbox_has_ended_is_not_at_work(api: Api, keeper: Keeper) -> None:
    session = await api.session(**WORKING)
    await api.sandboxes.kill((await stored_of(api, session)).sandbox)
    await live(api, keeper, session, IDLE_AFTER + 2)
    assert await state(api, session) is State.DEEP_SLEEP


async def test_a_session_whose_counters_cannot_be_read_now_may_be_at_work(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session(**WORKING)

    async def unknown(_: Sequence[Session]) -> Mapping[str, Worked]:
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(api.sandboxes, "worked", unknown)
        await live(api, keeper, session, IDLE_AFTER + 200)
        assert await state(api, session) is State.ACTIVE
    await live(api, keeper, session, 3 * int(LONGEST_LOOK))
    assert await state(api, session) is State.IDLE
