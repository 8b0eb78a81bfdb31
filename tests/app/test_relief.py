"""Which sessions sleep or wake after a start, on a host short of memory, and when connections carry data."""

import asyncio

import pytest
from structlog.testing import capture_logs

from buntime.errors import Unavailable
from buntime.lifecycle.keeper import Keeper
from buntime.ports import Strain
from buntime.session import State
from tests.app.serving import Api
from tests.app.sleeping import (
    content_of,
    deep_sleep,
    evicted,
    stored_of,
    write,
)
from tests.waiting import eventually


async def test_after_a_reboot_of_the_host_sessions_are_in_deep_sleep_with_all_their_files(api: Api) -> None:
    sessions = [await api.session() for _ in range(2)]
    for session in sessions:
        await write(api, session, session)
    await api.call("POST", f"/sessions/{sessions[1]}/sleep")
    for sandbox in list(api.sandboxes.running):
        await api.sandboxes.kill(sandbox)
    await api.lifecycle.transitions.settle()
    for session in sessions:
        stored = await stored_of(api, session)
        assert (stored.state, stored.archived) == (State.DEEP_SLEEP, False)
        assert await content_of(api, session) == session


async def test_a_session_whose_volume_was_lost_falls_back_to_its_snapshot_and_that_is_logged(api: Api) -> None:
    session = await evicted(api, "archived")
    await write(api, session, "since")
    await api.sandboxes.destroy(await stored_of(api, session))
    with capture_logs() as logs:
        await api.lifecycle.transitions.settle()
    assert "volume_lost" in [entry["event"] for entry in logs]
    stored = await stored_of(api, session)
    assert (stored.state, stored.archived) == (State.DEEP_SLEEP, True)
    assert await content_of(api, session) == "archived"


async def test_a_session_that_lost_its_volume_and_has_no_snapshot_sleeps_and_says_why_it_cannot_wake(api: Api) -> None:
    sessions = [await api.session() for _ in range(2)]
    await api.call("POST", f"/sessions/{sessions[1]}/sleep")
    for session in sessions:
        await api.sandboxes.destroy(await stored_of(api, session))
    await api.lifecycle.transitions.settle()
    for session in sessions:
        assert (await api.call("GET", f"/sessions/{session}")).json["state"] == "deep-sleep"
        answer = await api.call("POST", "/execute", {"sessionId": session, "command": "true"})
        assert answer.refusal == (409, "invalid_state")
        assert answer.json["error"]["details"]["reason"] == "volume_lost"


async def test_a_fallback_to_an_older_snapshot_is_logged(api: Api) -> None:
    session = await evicted(api, "archived")
    await write(api, session, "since")
    api.archive.unreachable = True
    await deep_sleep(api, session)
    api.archive.unreachable = False
    await api.sandboxes.volumes.remove((await stored_of(api, session)).volume)
    with capture_logs() as logs:
        assert await content_of(api, session) == "archived"
    assert "volume_lost" in [entry["event"] for entry in logs]


# --- sessions that stay suspended ---

IDLE, DEEP = 300, 1800


async def _kept(api: Api, keeper: Keeper) -> str:
    """Returns a session for which it was time for its deep sleep."""
    session = await api.session()
    await write(api, session, "kept")
    for seconds in (IDLE, DEEP):
        api.clock.now += seconds
        await api.keep(keeper)
    return session


async def test_a_session_can_stay_suspended_with_its_files_in_the_archive(api: Api) -> None:
    keeper = api.keeper(keeps=True)
    session = await _kept(api, keeper)
    stored = await stored_of(api, session)
    assert (stored.state, stored.saved is not None) == (State.IDLE, True)
    objects = set(api.archive.objects)
    api.clock.now += DEEP
    await api.keep(keeper)
    assert set(api.archive.objects) == objects, "what has not changed must not be archived again"
    assert (await api.call("POST", f"/sessions/{session}/wake")).json["wokeFrom"] == "idle"


async def test_what_changes_in_a_session_that_stays_suspended_is_archived_the_next_time(api: Api) -> None:
    keeper = api.keeper(keeps=True)
    session = await _kept(api, keeper)
    first = (await stored_of(api, session)).saved
    await write(api, session, "changed")
    for seconds in (IDLE, DEEP):
        api.clock.now += seconds
        await api.keep(keeper)
    stored = await stored_of(api, session)
    assert stored.state is State.IDLE
    assert stored.saved != first


async def test_a_session_that_cannot_be_archived_stays_suspended_and_is_tried_again(api: Api) -> None:
    keeper = api.keeper(keeps=True)
    api.archive.unreachable = True
    session = await _kept(api, keeper)
    stored = await stored_of(api, session)
    assert (stored.state, stored.saved) == (State.IDLE, None)
    api.archive.unreachable = False
    api.clock.now += 600
    await api.keep(keeper)
    assert (await stored_of(api, session)).saved is not None


async def test_a_new_server_keeps_it_too_and_it_expires_on_time(api: Api) -> None:
    session = await _kept(api, api.keeper(keeps=True))
    objects, next_one = set(api.archive.objects), api.keeper(keeps=True)
    await api.keep(next_one)
    assert (await stored_of(api, session)).state is State.IDLE
    assert set(api.archive.objects) == objects
    api.clock.now = (await stored_of(api, session)).ends_at
    await api.keep(next_one)
    await api.keep(next_one)
    assert (await api.call("GET", f"/sessions/{session}")).status == 404


@pytest.mark.parametrize("short", [Strain(memory=1, disk=0), Strain(memory=0, disk=0, sandboxes=1)])
async def test_the_session_that_is_suspended_for_longest_gives_way_when_the_host_is_short(
    api: Api, short: Strain
) -> None:
    keeper = api.keeper(keeps=True)
    sessions = []
    for _ in range(6):
        sessions.append(await api.session())
        api.clock.now += 10
    for seconds in (IDLE, DEEP):
        api.clock.now += seconds
        await api.keep(keeper)
    api.sandboxes.short = short
    await api.keep(keeper)
    deep, idle = State.DEEP_SLEEP, State.IDLE
    assert [(await stored_of(api, session)).state for session in sessions] == [deep, deep, deep, deep, idle, idle]


# --- relief ---


async def test_short_memory_puts_the_coldest_suspended_sessions_to_deep_sleep(api: Api) -> None:
    sessions = []
    for _ in range(6):
        sessions.append(await api.session())
        api.clock.now += 10
    for session in sessions[:-1]:
        await api.call("POST", f"/sessions/{session}/sleep")
    keeper = api.keeper()
    await api.keep(keeper)
    assert len(api.sandboxes.running) == 6, "no session must sleep if nothing is short"
    api.sandboxes.short = Strain(memory=1, disk=0)
    states: list[list[State]] = []
    for _ in range(3):
        await api.keep(keeper)
        states.append([(await stored_of(api, session)).state for session in sessions])
    deep, idle, active = State.DEEP_SLEEP, State.IDLE, State.ACTIVE
    assert states[0] == [deep, deep, deep, deep, idle, active]
    assert states[1] == states[2] == [deep, deep, deep, deep, deep, active], "an active session must stay active"


async def test_short_disk_evicts_the_least_recently_used_volumes_first(api: Api) -> None:
    sessions = []
    for _ in range(3):
        sessions.append(await api.session())
        await write(api, sessions[-1], "x" * 100)
        api.clock.now += 10
    for session in sessions:
        await deep_sleep(api, session)
    assert await content_of(api, sessions[0]) == "x" * 100
    await deep_sleep(api, sessions[0])
    api.sandboxes.short = Strain(memory=0, disk=150)
    await api.keep(api.keeper())
    here = [api.sandboxes.volumes.exists((await stored_of(api, session)).volume) for session in sessions]
    assert here == [True, False, False]
    api.sandboxes.short = Strain(memory=0, disk=0)
    assert [await content_of(api, session) for session in sessions] == ["x" * 100] * 3


async def test_a_create_uses_what_can_be_freed_and_is_refused_when_that_is_nothing(api: Api) -> None:
    session = await api.session()
    await write(api, session, "kept")
    await deep_sleep(api, session)
    api.sandboxes.capacity = 1
    refused = await api.call("POST", "/sessions/create", {})
    assert refused.refusal == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    api.sandboxes.short = Strain(memory=0, disk=1)
    assert (await api.call("POST", "/sessions/create", {})).status == 200
    api.sandboxes.capacity = 2
    assert await content_of(api, session) == "kept"


async def test_a_create_does_not_fail_when_a_session_is_deleted_while_room_is_made(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    api.sandboxes.capacity, api.sandboxes.short = 1, Strain(memory=1, disk=1)
    all_sessions = api.store.all_sessions

    async def and_then_it_is_deleted() -> object:
        found = await all_sessions()
        await api.call("DELETE", f"/sessions/{session}")
        return found

    api.store.all_sessions = and_then_it_is_deleted  # type: ignore[method-assign, assignment]
    made = await api.call("POST", "/sessions/create", {})
    assert made.status in (200, 503), made.body


# --- open connections ---


async def test_bytes_on_an_open_connection_wake_a_suspended_session_and_are_activity(api: Api) -> None:
    suspended, active, deep = [await api.session() for _ in range(3)]
    await api.call("POST", f"/sessions/{suspended}/sleep")
    await deep_sleep(api, deep)
    api.clock.now += 200
    for session in (suspended, active, deep):
        await api.lifecycle.leases.touched(session)
    await api.lifecycle.leases.touched("ses_that_is_no_more")
    states = [(await stored_of(api, session)).state for session in (suspended, active, deep)]
    assert states == [State.ACTIVE, State.ACTIVE, State.DEEP_SLEEP]
    api.clock.now += 200
    await api.keep(api.keeper(idle_after=300))
    assert (await stored_of(api, suspended)).state is State.ACTIVE
    assert (await stored_of(api, active)).state is State.ACTIVE


async def test_the_keeper_wakes_sessions_with_traffic_on_open_connections(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    api.sandboxes.got_bytes = {session}
    watching = asyncio.create_task(api.keeper().watch_connections())
    await eventually(lambda: api.store.sessions[session].state is State.ACTIVE)
    watching.cancel()


async def test_a_wake_by_an_open_connection_that_failed_is_tried_again(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    sandbox = api.sandboxes.running[api.store.sessions[session].sandbox]
    thaw = sandbox.thaw

    async def once_not() -> None:
        sandbox.thaw = thaw  # type: ignore[method-assign]
        api.sandboxes.got_bytes = set()
        raise Unavailable("not now")

    sandbox.thaw = once_not  # type: ignore[method-assign]
    api.sandboxes.got_bytes = {session}
    watching = asyncio.create_task(api.keeper().watch_connections())
    await eventually(lambda: api.store.sessions[session].state is State.ACTIVE)
    watching.cancel()
