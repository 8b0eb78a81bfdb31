"""A sandbox whose session another host has is ended, and none of a session that is being made or moved."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from buntime.fleet.comparing import Comparing, HeldSandbox
from buntime.fleet.members import Membership
from buntime.fleet.ownership import Ownership
from buntime.fleet.rows import Rows
from buntime.lifecycle.misplaced import MisplacedSandboxes
from buntime.session import Session
from tests.app.serving import Api
from tests.app.sleeping import PATIENCE, stored_of
from tests.waiting import eventually

ME = Membership("local", 1)


class Here:
    """`comparing.Held`, and `Rows` as far as they are asked, on the fakes."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def all(self) -> Mapping[str, HeldSandbox]:
        running = list(self._api.sandboxes.running.values())
        return {one.id: HeldSandbox(one.session, one.volume_id) for one in running if one.session}

    def keep_frozen(self, sandboxes: Collection[str]) -> None:
        raise AssertionError("only after a join")

    async def report(self, me: Membership, held: Collection[str]) -> Sequence[Ownership]:
        rows = [row for row in self._api.store.sessions.values() if row.id in held]
        return [Ownership(row.id, row.host or None, row.epoch, row.state, row.volume) for row in rows]


@pytest.fixture
def moved() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def misplaced(api: Api, moved: asyncio.Event) -> MisplacedSandboxes:
    here = Here(api)
    comparing = Comparing(cast("Rows", here), here, asyncio.Event())
    return MisplacedSandboxes(comparing, api.sandboxes, api.lifecycle.holds, lambda: ME, moved)


class Pause:
    """Stops a coroutine function of a fake before it does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, of: object, name: str) -> None:
        self.reached, self.opened, work = asyncio.Event(), asyncio.Event(), getattr(of, name)

        async def paused(*args: Any, **others: Any) -> Any:
            self.reached.set()
            async with asyncio.timeout(PATIENCE):
                await self.opened.wait()
            return await work(*args, **others)

        monkeypatch.setattr(of, name, paused)


async def test_a_sandbox_whose_session_another_host_has_is_ended(
    api: Api, misplaced: MisplacedSandboxes, moved: asyncio.Event
) -> None:
    mine, theirs = await api.session(), await api.session()
    before = await stored_of(api, theirs)
    api.store.sessions[theirs] = replace(before, host="another", epoch=2, volume="vol_of_another")
    await misplaced.look()
    assert list(api.sandboxes.running) == [(await stored_of(api, mine)).sandbox]
    assert moved.is_set(), "what it has of the files is kept aside"
    assert misplaced.ended == 1
    assert before.volume in api.sandboxes.volumes


async def test_one_that_cannot_be_ended_keeps_no_other_and_is_tried_again(
    api: Api, misplaced: MisplacedSandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, stop = [await api.session(), await api.session()], api.sandboxes.stop
    for session in theirs:
        before = await stored_of(api, session)
        api.store.sessions[session] = replace(before, host="another", epoch=2, volume=f"vol_of_{session}")
    failures = iter([OSError(5, "Input/output error")])

    async def fails_once(session: Session) -> None:
        for failure in failures:
            raise failure
        await stop(session)

    monkeypatch.setattr(api.sandboxes, "stop", fails_once)
    await misplaced.look()
    assert (misplaced.ended, len(api.sandboxes.running)) == (1, 1)
    await misplaced.look()
    assert not api.sandboxes.running


async def test_a_sandbox_without_a_row_is_ended_by_the_second_look(api: Api, misplaced: MisplacedSandboxes) -> None:
    session = await api.session()
    del api.store.sessions[session]
    await misplaced.look()
    assert api.sandboxes.running
    await misplaced.look()
    assert not api.sandboxes.running


@pytest.mark.parametrize("forks", [False, True])
async def test_a_session_that_is_being_made_is_not_misplaced(
    api: Api, misplaced: MisplacedSandboxes, monkeypatch: pytest.MonkeyPatch, forks: bool
) -> None:
    path = f"/sessions/{await api.session()}/fork" if forks else "/sessions/create"
    storing = Pause(monkeypatch, api.store, "add_session")
    making = asyncio.create_task(api.call("POST", path, {"count": 1} if forks else {}))
    await storing.reached.wait()
    running = len(api.sandboxes.running)
    for _ in range(3):
        await misplaced.look()
    assert len(api.sandboxes.running) == running
    storing.opened.set()
    made = await making
    assert made.status in (200, 201), made.body
    assert misplaced.ended == 0


async def test_a_session_that_is_being_restored_is_not_misplaced(
    api: Api, misplaced: MisplacedSandboxes, moved: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session()
    snapshot = (await api.call("POST", f"/sessions/{session}/snapshots", {})).json["snapshotId"]
    copying, ending = Pause(monkeypatch, api.sandboxes.volumes, "copy"), Pause(monkeypatch, api.sandboxes, "kill")
    restoring = asyncio.create_task(api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot}))
    await copying.reached.wait()
    for _ in range(2):
        await misplaced.look()
    copying.opened.set()
    assert (await restoring).status == 200
    await misplaced.look()
    assert len(api.sandboxes.running) == 2, "what it had before is still being removed"
    ending.opened.set()
    await eventually(lambda: len(api.sandboxes.running) == 1)
    await misplaced.look()
    assert misplaced.ended == 0
    assert not moved.is_set()


async def test_a_session_in_the_middle_of_a_transition_waits_for_the_next_look(
    api: Api, misplaced: MisplacedSandboxes
) -> None:
    session = await api.session()
    api.store.sessions[session] = replace(await stored_of(api, session), host="another")
    async with api.lifecycle.holds.lock(session):
        await misplaced.look()
        assert api.sandboxes.running
    await misplaced.look()
    assert not api.sandboxes.running


async def test_a_sandbox_that_was_moved_back_meanwhile_goes_on(
    api: Api, misplaced: MisplacedSandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question and the lock."""
    session = await api.session()
    before = await stored_of(api, session)
    api.store.sessions[session] = replace(before, host="another")
    report = Here.report

    async def answers_late(self: Here, me: Membership, held: Collection[str]) -> Sequence[Ownership]:
        rows = await report(self, me, held)
        api.store.sessions[session] = before
        return rows

    monkeypatch.setattr(Here, "report", answers_late)
    await misplaced.look()
    assert api.sandboxes.running
