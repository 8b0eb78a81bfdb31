"""Sessions into the archive and back, over HTTP, with an archive and sandboxes that do what a test tells them."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from buntime.errors import Unavailable
from buntime.ports import ObjectMissing, Strain, VolumeUnsendable
from buntime.session import Session, State
from tests.app.serving import Answer, Api, until

PATIENCE = 20.0


class Gate:
    """A thread of the server stops at it until the test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)


@asynccontextmanager
async def _opened_at_the_end(gate: Gate) -> AsyncIterator[Gate]:
    """However the test ends: the server does not wait for it then."""
    try:
        yield gate
    finally:
        gate.opened.set()


async def _write(api: Api, session: str, content: str) -> None:
    written = await api.call("POST", "/files/write", {"sessionId": session, "path": "file", "content": content})
    assert written.status == 200


async def _read(api: Api, session: str) -> Answer:
    return await api.call("GET", f"/files/read?sessionId={session}&path=file")


async def _content(api: Api, session: str) -> str:
    content: str = (await _read(api, session)).json["content"]
    return content


async def _sleep(api: Api, session: str) -> None:
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    assert (slept.status, slept.json["state"]) == (200, "deep-sleep")


async def _stored(api: Api, session: str) -> Session:
    stored = await api.store.get_session(session)
    assert stored is not None
    return stored


async def _evicted(api: Api, *contents: str) -> str:
    """A session that has slept once after each content; its volume is in the archive alone."""
    session = await api.session()
    for content in contents:
        await _write(api, session, content)
        await _sleep(api, session)
        api.clock.now += 1
    await api.leases.evict(session)
    assert not api.sandboxes.has_volume((await _stored(api, session)).sandbox)
    return session


async def test_a_sleeper_is_archived_evicted_and_restored(api: Api) -> None:
    session = await _evicted(api, "kept")
    stored = await _stored(api, session)
    assert stored.archived
    assert stored.snapshot is not None
    assert list(api.archive.objects) == [stored.snapshot.name]
    assert len(api.archive.objects[stored.snapshot.name]) == stored.snapshot.size
    assert b"kept" not in api.archive.objects[stored.snapshot.name]
    assert await _content(api, session) == "kept"
    assert not (await _stored(api, session)).archived, "whoever is awake changes the volume"


async def test_only_the_newest_object_and_the_one_before_are_kept(api: Api) -> None:
    session = await _evicted(api, "one", "two", "three", "four")
    stored = await _stored(api, session)
    assert stored.snapshot
    assert stored.previous
    assert set(api.archive.objects) == {stored.snapshot.name, stored.previous.name}
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await until(lambda: not api.store.sessions)
    assert not api.archive.objects


async def test_what_is_not_archived_or_awake_is_not_evicted(api: Api) -> None:
    session = await api.session()
    await api.leases.evict(session)
    api.archive.unreachable = True
    await _sleep(api, session)
    await api.leases.evict(session)
    assert api.sandboxes.volumes


async def test_requests_that_come_together_share_one_restore(api: Api) -> None:
    session = await _evicted(api, "kept")
    receive, received = api.sandboxes.receive, 0

    def counted(session: Session, content: Iterator[bytes]) -> None:
        nonlocal received
        received += 1
        receive(session, content)

    api.sandboxes.receive = counted  # type: ignore[method-assign]
    assert await asyncio.gather(*(_content(api, session) for _ in range(8))) == ["kept"] * 8
    assert received == 1


# --- damage ---


async def test_the_previous_snapshot_is_used_where_the_newest_is_damaged_and_that_is_logged(api: Api) -> None:
    session = await _evicted(api, "one", "two")
    before = await _stored(api, session)
    assert before.snapshot
    del api.archive.objects[before.snapshot.name]
    with capture_logs() as logs:
        assert await _content(api, session) == "one"
    assert "previous_snapshot_used" in [entry["event"] for entry in logs]
    after = await _stored(api, session)
    assert (after.snapshot, after.previous) == (before.previous, None), "the damaged one is not relied on again"


async def test_without_a_whole_snapshot_a_session_stays_as_it_is_and_says_why(api: Api) -> None:
    session = await _evicted(api, "one", "two")
    good, before = dict(api.archive.objects), await _stored(api, session)
    api.archive.objects.clear()
    for _ in range(2):
        refused = await _read(api, session)
        assert refused.refusal == (409, "invalid_state")
        assert (refused.error["details"]["reason"], refused.error["retryable"]) == ("snapshot_damaged", False)
    assert replace(await _stored(api, session), last_active=0) == replace(before, last_active=0)
    api.archive.objects |= good
    assert await _content(api, session) == "two"


# --- an archive that is away, lies, or is full ---


async def test_an_archive_that_is_away_is_a_failure_to_come_again_with(api: Api) -> None:
    session = await _evicted(api, "kept")
    api.archive.unreachable = True
    refused = await _read(api, session)
    assert refused.refusal == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await _stored(api, session)).state is State.DEEP_SLEEP
    api.archive.unreachable = False
    assert await _content(api, session) == "kept"


def _away(api: Api) -> None:
    api.archive.unreachable = True


def _lying(api: Api) -> None:
    api.archive.lying = True


def _full(api: Api) -> None:
    api.archive.capacity = 0


def _forgetful(api: Api) -> None:
    """What was put is not there."""

    def get(name: str) -> Iterator[bytes]:
        raise ObjectMissing(name)

    api.archive.get = get  # type: ignore[method-assign]


def _unsendable(api: Api) -> None:
    def send(sandbox_id: str) -> Iterator[bytes]:
        raise VolumeUnsendable("its paths are too long")
        yield b""

    api.sandboxes.send = send  # type: ignore[method-assign]


@pytest.mark.parametrize("wrong", [_away, _lying, _full, _forgetful, _unsendable])
async def test_what_cannot_be_archived_sleeps_on_its_host_until_it_can(api: Api, wrong: object) -> None:
    assert callable(wrong)
    session = await api.session()
    await _write(api, session, "kept")
    right = vars(api.archive) | {"objects": {}}
    send = api.sandboxes.send
    wrong(api)
    await _sleep(api, session)
    await api.keep(api.keeper())
    stored = await _stored(api, session)
    assert (stored.archived, stored.snapshot) == (False, None)
    assert not api.archive.objects, "nothing is left of the attempts"
    await api.leases.evict(session)
    assert await _content(api, session) == "kept"
    vars(api.archive).clear()
    vars(api.archive).update(right)
    api.sandboxes.send = send  # type: ignore[method-assign]
    await _sleep(api, session)
    assert (await _stored(api, session)).archived


async def test_a_volume_that_cannot_be_archived_is_not_tried_again_before_it_may_have_changed(api: Api) -> None:
    session, attempts = await api.session(), 0

    def send(sandbox_id: str) -> Iterator[bytes]:
        nonlocal attempts
        attempts += 1
        raise VolumeUnsendable("its paths are too long")
        yield b""

    api.sandboxes.send = send  # type: ignore[method-assign]
    await _sleep(api, session)
    keeper = api.keeper(tick=1.0)
    for _ in range(10):
        api.clock.now += 100
        await api.keep(keeper)
    assert attempts == 1
    await api.call("POST", f"/sessions/{session}/wake")
    await _sleep(api, session)
    assert attempts == 2


async def test_a_save_that_fails_is_tried_again_later_and_later(api: Api) -> None:
    session, attempts = await api.session(), 0
    api.archive.unreachable = True
    await _sleep(api, session)
    put = api.archive.put

    def counted(name: str, content: Iterator[bytes]) -> None:
        nonlocal attempts
        attempts += 1
        put(name, content)

    api.archive.put = counted  # type: ignore[method-assign]
    keeper = api.keeper(tick=1.0)
    for _ in range(128):
        await api.keep(keeper)
        api.clock.now += 1
    assert 5 <= attempts <= 8, "after 1, 2, 4, … seconds"
    api.archive.unreachable = False
    for _ in range(128):
        await api.keep(keeper)
        api.clock.now += 1
    assert (await _stored(api, session)).archived
    succeeded = attempts
    await api.keep(keeper)
    assert attempts == succeeded, "what is archived is left alone"


async def test_what_was_deleted_while_the_archive_was_away_goes_when_it_is_back(api: Api) -> None:
    session = await _evicted(api, "one", "two")
    api.archive.unreachable = True
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    assert (await api.call("GET", f"/sessions/{session}")).status == 404
    keeper = api.keeper(tick=1.0)
    await api.keep(keeper)
    stored = await _stored(api, session)
    assert stored.state is State.DELETING
    assert stored.key == "destroyed", "what is left of it in the archive opens for nobody"
    api.archive.unreachable = False
    for _ in range(5):
        api.clock.now += 5
        await api.keep(keeper)
    assert not api.archive.objects
    assert not api.store.sessions


# --- transfers and what comes between ---


async def test_a_wake_comes_before_a_save_and_nothing_is_named_that_was_interrupted(api: Api) -> None:
    session = await api.session()
    await _write(api, session, "kept")
    send = api.sandboxes.send
    sending, closed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def endless(sandbox_id: str) -> Iterator[bytes]:
        loop.call_soon_threadsafe(sending.set)
        try:
            while True:
                yield b""
        finally:
            closed.set()

    api.sandboxes.send = endless  # type: ignore[method-assign]
    sleeping = asyncio.create_task(_sleep_in_any_way(api, session))
    await sending.wait()
    assert await _content(api, session) == "kept"
    assert closed.is_set(), "nothing reads the volume while it is in use"
    assert (await sleeping).status == 200
    stored = await _stored(api, session)
    assert (stored.state, stored.snapshot, stored.archived) == (State.ACTIVE, None, False)
    assert not api.archive.objects
    api.sandboxes.send = send  # type: ignore[method-assign]
    await _sleep(api, session)
    assert len(api.archive.objects) == 1


async def _sleep_in_any_way(api: Api, session: str) -> Answer:
    return await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})


async def test_a_wake_does_not_wait_for_an_archive_that_hangs(api: Api) -> None:
    session = await api.session()
    await _write(api, session, "kept")
    put = api.archive.put
    async with _opened_at_the_end(Gate()) as gate:

        def hanging(name: str, content: Iterator[bytes]) -> None:
            gate()
            put(name, content)

        api.archive.put = hanging  # type: ignore[method-assign]
        sleeping = asyncio.create_task(_sleep_in_any_way(api, session))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert await _content(api, session) == "kept"
        assert not gate.opened.is_set()
        gate.opened.set()
        assert (await sleeping).status == 200
    assert not api.archive.objects
    assert await _content(api, session) == "kept"


@pytest.mark.parametrize("goes_away", [False, True], ids=["and there", "and then away"])
async def test_a_session_deleted_while_it_is_saved_leaves_no_object_however_late_the_archive_is(
    api: Api, goes_away: bool
) -> None:
    session, keeper = await api.session(), api.keeper(tick=1.0)
    put = api.archive.put
    async with _opened_at_the_end(Gate()) as gate:

        def late(name: str, content: Iterator[bytes]) -> None:
            taken = list(content)
            gate()
            put(name, iter(taken))
            api.archive.unreachable = goes_away

        api.archive.put = late  # type: ignore[method-assign]
        sleeping = asyncio.create_task(_sleep_in_any_way(api, session))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
        await api.keep(keeper)
        gate.opened.set()
        assert (await sleeping).status in (200, 404)
    assert not api.sandboxes.volumes
    api.archive.unreachable = False
    for _ in range(5):
        api.clock.now += 5
        await api.keep(keeper)
    assert not api.archive.objects
    assert not api.store.sessions


async def test_a_delete_ends_a_restore_that_is_under_way(api: Api) -> None:
    session = await _evicted(api, "kept")
    get = api.archive.get
    async with _opened_at_the_end(Gate()) as gate:

        def late(name: str) -> Iterator[bytes]:
            gate()
            yield from get(name)

        api.archive.get = late  # type: ignore[method-assign]
        waking = asyncio.create_task(api.call("POST", f"/sessions/{session}/wake"))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        deleting = asyncio.create_task(api.call("DELETE", f"/sessions/{session}"))
        stored = None
        while stored is None or stored.state is not State.DELETING:
            await asyncio.sleep(0)
            stored = await api.store.get_session(session)
        await asyncio.sleep(0.05)
        gate.opened.set()
        assert (await deleting).status == 200
        assert (await waking).status in (404, 503)
    await until(lambda: not api.store.sessions)
    assert not api.archive.objects
    assert not api.sandboxes.volumes
    assert not api.sandboxes.running


async def test_sweeping_takes_what_nobody_names_and_leaves_the_rest(api: Api) -> None:
    session = await _evicted(api, "one", "two")
    named = set(api.archive.objects)
    api.archive.objects |= {f"{session}/left-by-a-crash": b"x", "ses_000000000000000000/of-another-store": b"y"}
    with capture_logs() as logs:
        await api.leases.sweep()
    assert set(api.archive.objects) == named | {"ses_000000000000000000/of-another-store"}
    assert [entry["count"] for entry in logs if entry["event"] == "archive_of_unknown_sessions"] == [1]


async def test_sweeping_never_takes_what_is_saved_meanwhile(api: Api) -> None:
    session = await _evicted(api, "one")
    await _write(api, session, "two")
    names = api.archive.names
    async with _opened_at_the_end(Gate()) as gate:

        def late(prefix: str) -> object:
            if prefix and not gate.opened.is_set():
                gate()
            return names(prefix)

        api.archive.names = late  # type: ignore[method-assign, assignment]
        sweeping = asyncio.create_task(api.leases.sweep())
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        sleeping = asyncio.create_task(_sleep_in_any_way(api, session))
        await asyncio.sleep(0.3)  # enough for a save, if it does not wait
        gate.opened.set()
        await sweeping
        assert (await sleeping).status == 200
    stored = await _stored(api, session)
    assert stored.archived
    assert stored.snapshot
    assert stored.snapshot.name in api.archive.objects
    await api.leases.evict(session)
    assert await _content(api, session) == "two"


# --- after a start ---


async def test_after_a_reboot_of_the_host_sessions_are_in_deep_sleep_with_all_their_files(api: Api) -> None:
    sessions = [await api.session() for _ in range(2)]
    for session in sessions:
        await _write(api, session, session)
    await api.call("POST", f"/sessions/{sessions[1]}/sleep")
    for sandbox in list(api.sandboxes.running):
        await api.sandboxes.kill(sandbox)
    await api.leases.settle()
    for session in sessions:
        stored = await _stored(api, session)
        assert (stored.state, stored.archived) == (State.DEEP_SLEEP, False)
        assert await _content(api, session) == session


async def test_a_session_whose_volume_was_lost_falls_back_to_its_snapshot_and_that_is_logged(api: Api) -> None:
    session = await _evicted(api, "archived")
    await _write(api, session, "since")
    await api.sandboxes.destroy((await _stored(api, session)).sandbox)
    with capture_logs() as logs:
        await api.leases.settle()
    assert "volume_lost" in [entry["event"] for entry in logs]
    stored = await _stored(api, session)
    assert (stored.state, stored.archived) == (State.DEEP_SLEEP, True)
    assert await _content(api, session) == "archived"


async def test_a_sleeper_that_was_not_archived_again_does_not_fall_back_without_a_word(api: Api) -> None:
    session = await _evicted(api, "archived")
    await _write(api, session, "since")
    api.archive.unreachable = True
    await _sleep(api, session)
    api.archive.unreachable = False
    await api.sandboxes.destroy((await _stored(api, session)).sandbox)
    with capture_logs() as logs:
        assert await _content(api, session) == "archived"
    assert "volume_lost" in [entry["event"] for entry in logs]


OPERATIONS = ("write", "write", "deep", "deep", "idle", "wake", "evict", "relieve", "archive away", "archive back")


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_together_the_last_write_is_what_a_session_holds(api: Api, seed: int) -> None:
    chance = random.Random(seed)
    sessions = [await api.session() for _ in range(5)]
    written = dict.fromkeys(sessions, "")
    for session in sessions:
        await _write(api, session, "")

    async def ask(session: str, what: str, mark: str) -> None:
        path, body = {
            "write": ("/files/write", {"sessionId": session, "path": "file", "content": mark}),
            "deep": (f"/sessions/{session}/sleep", {"depth": "deep-sleep"}),
            "idle": (f"/sessions/{session}/sleep", {"depth": "idle"}),
            "wake": (f"/sessions/{session}/wake", {}),
        }[what]
        reply = await api.call("POST", path, body or None)
        assert reply.status == 200 or reply.error["retryable"], reply.body
        if what == "write" and reply.status == 200:
            written[session] = mark

    async def act(session: str, what: str, mark: str) -> None:
        match what:
            case "evict":
                await api.leases.evict(session)
            case "relieve":
                api.sandboxes.short = Strain(memory=1, disk=100)
                await api.leases.relieve()
                api.sandboxes.short = Strain(memory=0, disk=0)
            case "archive away" | "archive back":
                api.archive.unreachable = what.endswith("away")
            case _:
                await ask(session, what, mark)

    async def live(session: str) -> None:
        for turn in range(40):
            await act(session, chance.choice(OPERATIONS), f"{turn} of {session}")

    await asyncio.gather(*(live(session) for session in sessions), *(live(session) for session in sessions[:2]))
    api.archive.unreachable = False
    for session in sessions[2:]:  # the first two had two writers at once: the order of answers is not that of writes
        assert await _content(api, session) == written[session]
    for session in sessions:
        await _sleep(api, session)
    stored = [await _stored(api, session) for session in sessions]
    assert all(one.archived for one in stored)
    named = {snapshot.name for one in stored for snapshot in (one.snapshot, one.previous) if snapshot}
    assert set(api.archive.objects) == named


# --- relief ---


async def test_the_coldest_suspended_sessions_are_put_to_deep_sleep_where_memory_is_short(api: Api) -> None:
    sessions = []
    for _ in range(6):
        sessions.append(await api.session())
        api.clock.now += 10
    for session in sessions[:-1]:
        await api.call("POST", f"/sessions/{session}/sleep")
    keeper = api.keeper()
    await api.keep(keeper)
    assert len(api.sandboxes.running) == 6, "nobody goes down where nothing is short"
    api.sandboxes.short = Strain(memory=1, disk=0)
    states: list[list[State]] = []
    for _ in range(3):
        await api.keep(keeper)
        states.append([(await _stored(api, session)).state for session in sessions])
    deep, idle, active = State.DEEP_SLEEP, State.IDLE, State.ACTIVE
    assert states[0] == [deep, deep, deep, deep, idle, active]
    assert states[1] == states[2] == [deep, deep, deep, deep, deep, active], "never one that is awake"


async def test_volumes_go_the_least_recently_used_first_where_disk_is_short(api: Api) -> None:
    sessions = []
    for _ in range(3):
        sessions.append(await api.session())
        await _write(api, sessions[-1], "x" * 100)
        api.clock.now += 10
    for session in sessions:
        await _sleep(api, session)
    assert await _content(api, sessions[0]) == "x" * 100
    await _sleep(api, sessions[0])
    api.sandboxes.short = Strain(memory=0, disk=150)
    await api.keep(api.keeper())
    here = [api.sandboxes.has_volume((await _stored(api, session)).sandbox) for session in sessions]
    assert here == [True, False, False]
    api.sandboxes.short = Strain(memory=0, disk=0)
    assert [await _content(api, session) for session in sessions] == ["x" * 100] * 3


async def test_a_create_takes_the_room_that_can_be_freed_and_is_refused_where_there_is_none(api: Api) -> None:
    session = await api.session()
    await _write(api, session, "kept")
    await _sleep(api, session)
    api.sandboxes.capacity = 1
    refused = await api.call("POST", "/sessions/create", {})
    assert refused.refusal == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    api.sandboxes.short = Strain(memory=0, disk=1)
    assert (await api.call("POST", "/sessions/create", {})).status == 200
    api.sandboxes.capacity = 2
    assert await _content(api, session) == "kept"


async def test_a_create_does_not_fail_for_a_session_that_is_deleted_while_room_is_made(api: Api) -> None:
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
    await _sleep(api, deep)
    api.clock.now += 200
    for session in (suspended, active, deep):
        await api.leases.touched(session)
    await api.leases.touched("ses_that_is_no_more")
    states = [(await _stored(api, session)).state for session in (suspended, active, deep)]
    assert states == [State.ACTIVE, State.ACTIVE, State.DEEP_SLEEP]
    api.clock.now += 200
    await api.keep(api.keeper(idle_after=300))
    assert (await _stored(api, suspended)).state is State.ACTIVE
    assert (await _stored(api, active)).state is State.ACTIVE


async def test_the_keeper_asks_who_was_touched(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep")
    api.sandboxes.got_bytes = {session}
    watching = asyncio.create_task(api.keeper().watch_connections())
    await until(lambda: api.store.sessions[session].state is State.ACTIVE)
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
    await until(lambda: api.store.sessions[session].state is State.ACTIVE)
    watching.cancel()
