"""A session that moved and came back, while this host was stopped in the middle of something, is not put back."""

import asyncio
from dataclasses import replace

import pytest

from buntime.session import SavedVolume, Session, State
from tests.app.serving import Api
from tests.app.sleeping import Gate, ask_to_sleep, deep_sleep, opened_at_the_end, stored_of, write
from tests.waiting import eventually


async def move_and_come_back(api: Api, session: str) -> Session:
    """Two other claims, each with a volume of its own. Returns the row."""
    before = await stored_of(api, session)
    saved = SavedVolume(f"{session}/1705660300-{before.epoch + 1}-0123456789ab", 1, 1705660300)
    api.store.sessions[session] = replace(
        before.down() if before.state is not State.DEEP_SLEEP else before,
        epoch=before.epoch + 2,
        version=before.version + 2,
        volume="vol_later",
        saved=saved,
        archived=True,
    )
    return api.store.sessions[session]


async def test_what_an_earlier_owner_archives_is_not_the_sessions_newest_state(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session()
    await write(api, session, "old")
    put = api.archive.put
    async with opened_at_the_end(Gate()) as gate:

        def stopped(name: str, content: object) -> None:
            put(name, content)  # type: ignore[arg-type]
            gate()

        monkeypatch.setattr(api.archive, "put", stopped)
        asleep = asyncio.create_task(ask_to_sleep(api, session))
        assert await asyncio.to_thread(gate.reached.wait, 20)
        later = await move_and_come_back(api, session)
        gate.opened.set()
        await asleep
        await eventually(lambda: not api.saving.under_way)
    assert (await stored_of(api, session)).saved == later.saved


async def test_a_sandbox_on_the_files_of_an_earlier_owner_does_not_serve_the_session(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session()
    await write(api, session, "old")
    await deep_sleep(api, session)
    start = api.sandboxes.start

    async def stopped(one: Session) -> object:
        sandbox = await start(one)
        await move_and_come_back(api, session)
        api.archive.unreachable = True  # the wake begins again, and cannot get the later files
        return sandbox

    monkeypatch.setattr(api.sandboxes, "start", stopped)
    woken = await api.call("POST", f"/sessions/{session}/wake")
    assert woken.refusal == (503, "unavailable")
    stored = await stored_of(api, session)
    assert (stored.state, stored.volume) == (State.DEEP_SLEEP, "vol_later")
    assert not api.sandboxes.running
