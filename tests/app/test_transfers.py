"""Saves, restores and sweeps, and what interrupts them."""

import asyncio
import random
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from buntime.ports import Strain
from buntime.session import State
from tests.app.serving import Api
from tests.app.sleeping import (
    PATIENCE,
    Gate,
    ask_to_sleep,
    content_of,
    deep_sleep,
    evicted,
    opened_at_the_end,
    stored_of,
    write,
)
from tests.waiting import eventually


async def test_a_wake_interrupts_a_save_and_the_store_never_names_its_object(api: Api) -> None:
    session = await api.session()
    await write(api, session, "kept")
    send = api.sandboxes.volumes.send
    sending, closed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def endless(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        loop.call_soon_threadsafe(sending.set)
        try:
            while True:
                yield b""
        finally:
            closed.set()

    api.sandboxes.volumes.send = endless  # type: ignore[method-assign]
    sleeping = asyncio.create_task(ask_to_sleep(api, session))
    await sending.wait()
    assert await content_of(api, session) == "kept"
    assert closed.is_set(), "nothing must read the volume while it is in use"
    assert (await sleeping).status == 200
    stored = await stored_of(api, session)
    assert (stored.state, stored.saved, stored.archived) == (State.ACTIVE, None, False)
    assert not api.archive.objects
    api.sandboxes.volumes.send = send  # type: ignore[method-assign]
    await deep_sleep(api, session)
    assert len(api.archive.objects) == 1


async def test_a_wake_does_not_wait_for_an_archive_that_hangs(api: Api) -> None:
    session = await api.session()
    await write(api, session, "kept")
    put = api.archive.put
    async with opened_at_the_end(Gate()) as gate:

        def hanging(name: str, content: Iterator[bytes]) -> None:
            gate()
            put(name, content)

        api.archive.put = hanging  # type: ignore[method-assign]
        sleeping = asyncio.create_task(ask_to_sleep(api, session))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert await content_of(api, session) == "kept"
        assert not gate.opened.is_set()
        gate.opened.set()
        assert (await sleeping).status == 200
    assert not api.archive.objects
    assert await content_of(api, session) == "kept"


@pytest.mark.parametrize("goes_away", [False, True], ids=["and there", "and then away"])
async def test_a_session_deleted_while_it_is_saved_leaves_no_object_however_late_the_archive_is(
    api: Api, goes_away: bool
) -> None:
    session, keeper = await api.session(), api.keeper(tick=1.0)
    put = api.archive.put
    async with opened_at_the_end(Gate()) as gate:

        def late(name: str, content: Iterator[bytes]) -> None:
            taken = list(content)
            gate()
            put(name, iter(taken))
            api.archive.unreachable = goes_away

        api.archive.put = late  # type: ignore[method-assign]
        sleeping = asyncio.create_task(ask_to_sleep(api, session))
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
    session = await evicted(api, "kept")
    get = api.archive.get
    async with opened_at_the_end(Gate()) as gate:

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
    await eventually(lambda: not api.store.sessions)
    assert not api.archive.objects
    assert not api.sandboxes.volumes
    assert not api.sandboxes.running


async def test_a_sweep_removes_only_objects_that_the_store_does_not_name(api: Api) -> None:
    session = await evicted(api, "one", "two")
    named = set(api.archive.objects)
    api.archive.objects |= {f"{session}/left-by-a-crash": b"x", "ses_000000000000000000/of-another-store": b"y"}
    with capture_logs() as logs:
        await api.lifecycle.archiving.sweep()
    assert set(api.archive.objects) == named | {"ses_000000000000000000/of-another-store"}
    assert [entry["count"] for entry in logs if entry["event"] == "archive_of_unknown_sessions"] == [1]


async def test_a_sweep_never_removes_an_object_that_is_being_saved(api: Api) -> None:
    session = await evicted(api, "one")
    await write(api, session, "two")
    names = api.archive.names
    async with opened_at_the_end(Gate()) as gate:

        def late(prefix: str) -> object:
            if prefix and not gate.opened.is_set():
                gate()
            return names(prefix)

        api.archive.names = late  # type: ignore[method-assign, assignment]
        sweeping = asyncio.create_task(api.lifecycle.archiving.sweep())
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        sleeping = asyncio.create_task(ask_to_sleep(api, session))
        await asyncio.sleep(0.3)  # long enough for a save that does not wait
        gate.opened.set()
        await sweeping
        assert (await sleeping).status == 200
    stored = await stored_of(api, session)
    assert stored.archived
    assert stored.saved
    assert stored.saved.name in api.archive.objects
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "two"


OPERATIONS = ("write", "write", "deep", "deep", "idle", "wake", "evict", "relieve", "archive away", "archive back")


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_write_survives_any_mix_of_operations(api: Api, seed: int) -> None:
    chance = random.Random(seed)
    sessions = [await api.session() for _ in range(5)]
    written = dict.fromkeys(sessions, "")
    for session in sessions:
        await write(api, session, "")

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
                await api.lifecycle.archiving.evict(session)
            case "relieve":
                api.sandboxes.short = Strain(memory=1, disk=100)
                await api.lifecycle.relief.relieve()
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
    for session in sessions[2:]:  # the first two had concurrent writers, so answers may have another order than writes
        assert await content_of(api, session) == written[session]
    for session in sessions:
        await content_of(api, session)  # wakes it, so that it is saved again now that the archive can be swept
        await deep_sleep(api, session)
        assert await api.lifecycle.archiving.archive(session)  # waits until the running save has swept
    stored = [await stored_of(api, session) for session in sessions]
    assert all(one.archived for one in stored)
    named = {link for one in stored for saved in (one.saved, one.previous) if saved for link in saved.links}
    assert set(api.archive.objects) == named
