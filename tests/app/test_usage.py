"""What sessions used is in the store after each change of state, and between two changes after each note."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from buntime.daemon.moments import moments_of
from buntime.lifecycle.keeper import Keeper
from buntime.lifecycle.metering import Metering
from buntime.session import State
from buntime.testing.sandboxes import FakeSandbox
from buntime.usage import NOTHING, Amounts, Reading, Window
from tests.app.serving import Api
from tests.app.sleeping import deep_sleep, stored_of
from tests.waiting import eventually

ACCOUNT = "acc_one0000000000000"
MINUTE, HOUR = 60, 3600


async def total(api: Api, session: str | None = None) -> Amounts:
    return sum((used for _, used in await api.store.usage_by_day(ACCOUNT, 0, 100_000, session)), NOTHING)


async def windows(api: Api) -> Sequence[Window]:
    return (await api.store.list_windows(ACCOUNT, 0, 1000))[0]


async def sandbox_of(api: Api, session: str) -> FakeSandbox:
    return api.sandboxes.running[(await stored_of(api, session)).sandbox]


async def execute(api: Api, session: str) -> None:
    ran = await api.call("POST", "/execute", {"sessionId": session, "command": "true"})
    assert ran.status == 200, ran.body


async def pass_time(api: Api, keeper: Keeper, seconds: int) -> None:
    """Ticks once a minute."""
    for _ in range(seconds // MINUTE):
        api.clock.now += MINUTE
        await api.keep(keeper)


async def test_each_state_counts_its_own_seconds(api: Api) -> None:
    session = await api.session()
    api.clock.now += 10
    assert await api.lifecycle.transitions.suspend(session)
    api.clock.now += 20
    await api.lifecycle.leases.wake(session)
    api.clock.now += 30
    await deep_sleep(api, session)
    api.clock.now += 40
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    used = await total(api, session)
    assert (used.active, used.idle, used.deep_sleep) == (40_000, 20_000, 40_000)
    states = [State.ACTIVE, State.IDLE, State.ACTIVE, State.DEEP_SLEEP]
    assert [window.state for window in await windows(api)][:3] == states[:3]
    assert (await windows(api))[-1].state is State.DEEP_SLEEP


async def test_windows_of_a_session_have_no_gap(api: Api) -> None:
    session = await api.session()
    for _ in range(3):
        api.clock.now += 7
        await deep_sleep(api, session)
        api.clock.now += 5
        await execute(api, session)
    api.clock.now += 7
    await api.call("DELETE", f"/sessions/{session}")
    found = await windows(api)
    assert [window.ordinal for window in found] == list(range(1, len(found) + 1))
    assert all(one.ended_at == after.began_at for one, after in pairwise(found))
    assert sum((window.amounts for window in found), NOTHING) == await total(api)


async def test_what_a_sandbox_used_before_the_session_had_it_is_not_counted(api: Api) -> None:
    session = await api.session()
    sandbox = await sandbox_of(api, session)
    sandbox.cpu, sandbox.bytes_out = 700, 70
    await deep_sleep(api, session)
    await execute(api, session)
    again = await sandbox_of(api, session)
    assert again is not sandbox
    again.cpu, again.bytes_out = 30, 3
    await api.call("DELETE", f"/sessions/{session}")
    used = await total(api)
    assert (used.cpu, used.bytes_out) == (730, 73)


async def test_a_new_session_starts_from_what_its_sandbox_had_used_ahead(api: Api) -> None:
    api.sandboxes.used_ahead = 500, 50
    session = await api.session()
    sandbox = await sandbox_of(api, session)
    assert sandbox.cpu == 500
    sandbox.cpu, sandbox.bytes_out = 730, 73
    await api.call("DELETE", f"/sessions/{session}")
    used = await total(api)
    assert (used.cpu, used.bytes_out) == (230, 23)


async def test_executions_count_when_they_begin(api: Api) -> None:
    session = await api.session()
    for _ in range(3):
        await execute(api, session)
    await deep_sleep(api, session)
    assert (await total(api)).executions == 3


async def test_the_keeper_notes_awake_sessions_each_minute(api: Api) -> None:
    session, keeper = await api.session(), api.keeper(idle_after=float("inf"))
    await api.keep(keeper)
    (await sandbox_of(api, session)).cpu = 5
    await pass_time(api, keeper, 3 * MINUTE)
    used = await total(api)
    assert used.cpu == 5
    assert 2 * MINUTE <= used.active // 1000 <= 3 * MINUTE
    assert await windows(api) == []


async def test_the_keeper_closes_a_window_each_hour_while_awake(api: Api) -> None:
    await api.session()
    keeper = api.keeper(idle_after=float("inf"))
    await pass_time(api, keeper, 3 * HOUR)
    found = await windows(api)
    assert len(found) in (2, 3)
    assert all(window.amounts.milliseconds <= 1000 * HOUR for window in found)


async def test_a_server_that_starts_every_quarter_of_an_hour_still_closes_windows_of_deep_sleep(api: Api) -> None:
    asleep = [await api.session(ttl=7 * 24 * HOUR) for _ in range(5)]
    for session in asleep:
        await deep_sleep(api, session)
    for _ in range(4 * 24):
        metering = Metering(api.store, api.sandboxes, api.tasks, moments_of(api.clock))
        for session in asleep:
            metering.note(await stored_of(api, session))
        for _ in range(15):
            api.clock.now += MINUTE
            metering.begin_due()
            await eventually(lambda: metering.at_rest)  # noqa: B023  # is awaited here
    closed = [window for window in await windows(api) if window.state is State.DEEP_SLEEP]
    assert {window.session for window in closed} == set(asleep)


async def test_after_a_start_each_of_many_sessions_is_noted_within_minutes(api: Api) -> None:
    one = await stored_of(api, await api.session())
    asleep = [replace(one, id=f"ses_{number:018}", state=State.DEEP_SLEEP) for number in range(1000)]
    noted = Counter[str]()

    async def note(readings: Mapping[str, Reading]) -> None:
        noted.update(readings.keys())

    api.store.note_usage = note  # type: ignore[method-assign]
    metering = Metering(api.store, api.sandboxes, api.tasks, moments_of(api.clock))
    for session in asleep:
        metering.note(session)
    metering.note(replace(asleep[0], state=State.DELETING))
    for _ in range(605):
        metering.begin_due()
        await eventually(lambda: metering.at_rest)
        api.clock.now += 1
    assert noted == Counter(session.id for session in asleep[1:])


async def test_a_session_whose_sandbox_ended_with_the_host_loses_no_more_than_since_its_last_note(api: Api) -> None:
    session, keeper = await api.session(), api.keeper(idle_after=float("inf"))
    await pass_time(api, keeper, 5 * MINUTE)
    noted = (await total(api)).active
    api.clock.now += HOUR
    await api.sandboxes.kill((await stored_of(api, session)).sandbox)
    await api.lifecycle.transitions.settle()
    assert (await stored_of(api, session)).state is State.DEEP_SLEEP
    await api.call("DELETE", f"/sessions/{session}")
    used = await total(api)
    assert used.active == noted >= 4 * MINUTE * 1000
    assert used.milliseconds == 1000 * (5 * MINUTE + HOUR)


async def test_what_the_archive_has_counts_in_deep_sleep(api: Api) -> None:
    session = await api.session()
    await deep_sleep(api, session)
    await api.lifecycle.archiving.archive(session)
    saved = (await stored_of(api, session)).saved
    assert saved
    api.clock.now += 1024
    await api.call("DELETE", f"/sessions/{session}")
    assert (await total(api)).archived == saved.size  # times 1,024 seconds, in KiB
