"""A host that drains gives up its sessions, and no request fails for that."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import Unavailable
from buntime.lifecycle import draining as lifecycle_draining
from buntime.lifecycle.draining import Draining
from buntime.ports import Run, RunResult
from buntime.session import Session, State
from buntime.testing.owners import FakeOwners
from buntime.testing.sandboxes import FakeSandbox, result
from buntime.testing.store import FakeStore
from tests.app.serving import Answer, Api, serving
from tests.app.sleeping import PATIENCE, Gate, content_of, deep_sleep, opened_at_the_end, read, stored_of, write
from tests.app.test_owners import CHANGES, ask, filled, goes_after_the_first_look
from tests.waiting import eventually

LOCAL = "local"


@dataclass
class Marked:
    """`Drain`, as the test says."""

    left: float = math.inf  # seconds until sessions that are awake end
    on: bool = True
    host: str = LOCAL

    def is_on(self) -> bool:
        return self.on

    async def seconds_left(self) -> float:
        return self.left


class Claiming(FakeOwners):
    """The owners of a host that claims what is nobody's."""

    store: FakeStore

    def is_mine(self, session: Session) -> bool:
        return session.host == LOCAL

    async def here(self, session: Session) -> Session:
        if session.host:
            return session
        claimed = replace(session, host=LOCAL, epoch=session.epoch + 1, version=session.version + 1)
        self.store.sessions[session.id] = claimed
        return claimed

    async def take(self, session: Session) -> Session:
        return await self.here(session)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Its host claims again what it has given up, when it is asked for."""

    owners = Claiming()
    async with serving(owners=owners) as served:
        owners.store = served.store
        yield served


def draining(api: Api) -> Draining:
    assert api.lifecycle.draining is not None
    return api.lifecycle.draining


async def host_of(api: Api, session: str) -> str:
    return (await stored_of(api, session)).host


async def has_volume(api: Api, session: str) -> bool:
    return api.sandboxes.volumes.exists((await stored_of(api, session)).volume)


async def idle(api: Api, session: str) -> None:
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})).status == 200


async def test_sleeping_sessions_go_at_once_and_their_volumes_with_them(api: Api) -> None:
    sessions = [await api.session() for _ in range(10)]
    for session in sessions:
        await write(api, session, session)
        await deep_sleep(api, session)
    assert await draining(api).step(Marked()) == 0
    for session in sessions:
        assert await host_of(api, session) == ""
        assert not await has_volume(api, session)
        assert (await stored_of(api, session)).epoch == 1, "it grows when another host claims the session"
    assert draining(api).released == 10


async def test_a_session_that_was_given_up_wakes_with_its_files_where_it_is_claimed(api: Api) -> None:
    session = await api.session()
    await write(api, session, "mine")
    await deep_sleep(api, session)
    await draining(api).step(Marked())
    assert await content_of(api, session) == "mine"
    assert await host_of(api, session) == LOCAL


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_a_session_that_is_given_up_before_a_request_begins_is_claimed_and_changed(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, object] | None
) -> None:
    """Where no other host takes it."""
    session = await api.session()
    body = await filled(api, session, body)
    await deep_sleep(api, session)

    def goes(found: Session) -> None:
        api.store.sessions[session] = replace(found, host="")

    goes_after_the_first_look(api, monkeypatch, goes)
    lost_nothing = (409, "invalid_state") if path.endswith("/recover") else (200, "")
    assert await ask(api, session, method, path, body) == lost_nothing
    assert method == "DELETE" or (await stored_of(api, session)).epoch == 2


async def test_what_the_archive_does_not_have_goes_when_it_has_it(api: Api) -> None:
    session = await api.session()
    api.archive.unreachable = True
    await deep_sleep(api, session)
    assert await draining(api).step(Marked()) == 1
    assert await host_of(api, session) == LOCAL
    api.archive.unreachable = False
    assert await draining(api).step(Marked()) == 0
    assert not await has_volume(api, session)


async def test_awake_sessions_stay_until_they_fall_asleep(api: Api) -> None:
    active, sleepy = await api.session(), await api.session()
    await idle(api, sleepy)
    assert await draining(api).step(Marked(left=1)) == 2
    assert (await stored_of(api, active)).state is State.ACTIVE
    assert (await stored_of(api, sleepy)).state is State.IDLE
    await deep_sleep(api, sleepy)
    assert await draining(api).step(Marked(left=1)) == 1


async def test_when_its_time_is_over_awake_sessions_go_to_deep_sleep_and_go(api: Api) -> None:
    active, sleepy = await api.session(), await api.session()
    await write(api, active, "kept")
    await idle(api, sleepy)
    assert await draining(api).step(Marked(left=0)) == 0
    assert [await host_of(api, session) for session in (active, sleepy)] == ["", ""]
    assert await content_of(api, active) == "kept"


async def test_a_session_that_a_request_uses_stays_until_the_request_has_ended() -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(run: Run, _: FakeSandbox) -> RunResult:
        began.set()
        await goes_on.wait()
        return result(b"done\n")

    async with serving(runner=slow) as api:
        session = await api.session()
        run = asyncio.create_task(api.call("POST", "/execute", {"sessionId": session, "command": "slow"}))
        await began.wait()
        assert await draining(api).step(Marked(left=0)) == 1
        assert (await stored_of(api, session)).state is State.ACTIVE
        goes_on.set()
        assert (await run).json["stdout"] == "done\n"
        assert await draining(api).step(Marked(left=0)) == 0


@asynccontextmanager
async def stuck_archive(api: Api) -> AsyncIterator[Gate]:
    """Objects arrive in the archive when the gate is open."""
    put = api.archive.put
    async with opened_at_the_end(Gate()) as gate:

        def stuck(name: str, content: Iterator[bytes]) -> None:
            gate()
            put(name, content)

        api.archive.put = stuck  # type: ignore[method-assign]
        yield gate


async def test_an_active_session_is_archived_before_its_requests_have_to_wait(api: Api) -> None:
    session = await api.session()
    await write(api, session, "content")
    async with stuck_archive(api) as gate:
        step = asyncio.create_task(draining(api).step(Marked(left=0)))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert await content_of(api, session) == "content"
        assert (await stored_of(api, session)).state is State.ACTIVE
        gate.opened.set()
        assert await step == 0
    assert await host_of(api, session) == ""


async def test_an_active_session_stays_awake_while_the_archive_is_away(api: Api) -> None:
    session = await api.session()
    await write(api, session, "content")
    api.archive.unreachable = True
    assert await draining(api).step(Marked(left=0)) == 1
    assert (await stored_of(api, session)).state is State.ACTIVE


async def test_a_request_waits_while_its_session_goes(api: Api) -> None:
    """Otherwise a session with a request every second would never go."""
    session = await api.session()
    await write(api, session, "content")
    await idle(api, session)
    async with stuck_archive(api) as gate:
        step = asyncio.create_task(draining(api).step(Marked(left=0)))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        request = asyncio.create_task(content_of(api, session))
        await asyncio.wait({request}, timeout=0.2)
        assert not request.done()
        gate.opened.set()
        assert await step == 0
        assert await request == "content"
    assert (await stored_of(api, session)).epoch == 2, "it was claimed after it had gone"


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_request_does_not_wait_for_a_slow_archive(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, is_over: bool
) -> None:
    monkeypatch.setattr(lifecycle_draining, "LEAVE_SECONDS", 0.2 if is_over else PATIENCE)
    session = await api.session()
    await write(api, session, "content")
    async with stuck_archive(api) as gate:
        if is_over:
            await idle(api, session)
        else:
            await deep_sleep(api, session)
        step = asyncio.create_task(draining(api).step(Marked(left=0 if is_over else 1)))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert await content_of(api, session) == "content"
        gate.opened.set()
        assert await step == 1
    assert await host_of(api, session) == LOCAL
    assert (await stored_of(api, session)).state is State.ACTIVE


async def test_requests_that_come_while_sessions_go_all_succeed(api: Api) -> None:
    sessions = [await api.session() for _ in range(8)]
    for session in sessions:
        await write(api, session, session)
    over = Marked(left=0)
    stop = asyncio.Event()

    async def drain() -> None:
        while not stop.is_set():
            await draining(api).step(over)
            await asyncio.sleep(0)

    async def ask(session: str) -> list[Answer]:
        return [await read(api, session) for _ in range(10)]

    draining_on = asyncio.create_task(drain())
    answers = await asyncio.gather(*(ask(session) for session in sessions))
    stop.set()
    await draining_on
    for session, given in zip(sessions, answers, strict=True):
        assert [(answer.status, answer.json.get("content")) for answer in given] == [(200, session)] * 10
    assert draining(api).released > 0
    assert await draining(api).step(over) == 0


async def test_a_host_that_is_resumed_gives_up_nothing_more(api: Api) -> None:
    for _ in range(10):
        await deep_sleep(api, await api.session())
    marked = Marked()
    released = api.store.release

    async def once(session: Session) -> bool:
        marked.on = False
        return await released(session)

    api.store.release = once  # type: ignore[method-assign]
    left = await draining(api).step(marked)
    assert 0 < left < 10
    assert left == 10 - draining(api).released


async def test_a_session_of_another_host_is_left_alone(api: Api) -> None:
    session = await api.session()
    await deep_sleep(api, session)
    api.store.sessions[session] = replace(await stored_of(api, session), host="hst_other")
    assert await draining(api).step(Marked()) == 0
    assert await host_of(api, session) == "hst_other"


async def test_a_deleted_session_is_not_given_up(api: Api) -> None:
    session = await api.session()
    api.archive.unreachable = True
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await draining(api).step(Marked(left=0))
    assert draining(api).released == 0


async def test_a_volume_that_is_newer_than_its_checkpoint_stays(api: Api) -> None:
    session = await api.session()
    await deep_sleep(api, session)
    await eventually(lambda: api.store.sessions[session].archived)
    asleep = await stored_of(api, session)
    assert asleep.saved is not None
    api.store.sessions[session] = replace(asleep, saved=replace(asleep.saved, is_checkpoint=True))
    assert await draining(api).step(Marked()) == 1
    assert await has_volume(api, session)


async def test_a_session_waits_until_the_archive_has_the_layers_of_its_image(api: Api) -> None:
    source = await api.session()
    assert (await api.call("POST", "/images/create", {"sessionId": source, "name": "app"})).status == 200
    session = await api.session(image="app")
    (layer,) = await api.store.all_layers()
    await eventually(lambda: api.store.layers[layer.id].saved is not None)
    await deep_sleep(api, session)
    await eventually(lambda: api.store.sessions[session].archived)
    saved = api.store.layers[layer.id]
    api.store.layers[layer.id] = replace(saved, saved=None)
    api.archive.unreachable = True
    await draining(api).step(Marked())
    assert await host_of(api, session) == LOCAL
    api.archive.unreachable = False
    await draining(api).step(Marked())
    await eventually(lambda: api.store.layers[layer.id].saved is not None)
    await draining(api).step(Marked())
    assert await host_of(api, session) == ""


async def test_a_store_that_is_away_stops_no_drain_for_good(api: Api) -> None:
    session = await api.session()
    await deep_sleep(api, session)
    released, asked = api.store.release, 0

    async def away(session: Session) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable("The server cannot reach its database right now.")
        return await released(session)

    api.store.release = away  # type: ignore[method-assign]
    assert await draining(api).step(Marked()) == 1
    assert await has_volume(api, session), "nothing goes before the store has it"
    assert await draining(api).step(Marked()) == 0


async def test_a_session_whose_files_cannot_be_put_on_disk_stays_awake_and_keeps_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await api.session(), await api.session()
    sandbox = api.sandboxes.running[(await stored_of(api, bad)).sandbox]
    quiesce = sandbox.quiesce

    async def fails(*, durable: bool = True) -> bool:
        await quiesce(durable=durable)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "quiesce", fails)
        assert await draining(api).step(Marked(left=0)) == 1
    assert [await host_of(api, session) for session in (bad, good)] == [LOCAL, ""]
    await write(api, bad, "it is not left frozen")
    assert await draining(api).step(Marked(left=0)) == 0


async def test_a_drain_goes_on_after_a_step_that_failed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle_draining, "PAUSE_SECONDS", 0.01)
    session = await api.session()
    await deep_sleep(api, session)
    failures, all_sessions = iter([OSError(5, "Input/output error")]), api.store.all_sessions

    async def fails_once() -> Sequence[Session]:
        for failure in failures:
            raise failure
        return await all_sessions()

    monkeypatch.setattr(api.store, "all_sessions", fails_once)
    running = asyncio.create_task(draining(api).keep(Marked(left=0)))
    try:
        await eventually(lambda: draining(api).released == 1)
    finally:
        await cancel_and_wait(running)
