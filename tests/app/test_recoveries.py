"""Recoveries over HTTP: a session whose volume is lost goes on from what the archive has, when its account asks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from buntime.lifecycle.keeper import Keeper
from buntime.session import State
from tests.app.serving import Answer, Api, serving
from tests.app.sleeping import Gate, content_of, deep_sleep, evicted, opened_at_the_end, stored_of, write
from tests.waiting import eventually

EVERY = 60


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(checkpoints=True) as running:
        yield running


@pytest.fixture
def keeper(api: Api) -> Keeper:
    return api.keeper(idle_after=1e9, deep_sleep_after=1e9)


async def recover(api: Api, session: str, **headers: str) -> Answer:
    return await api.call("POST", f"/sessions/{session}/recover", **headers)


async def refused(api: Api, session: str) -> dict[str, object]:
    """Returns the details of a 409."""
    answer = await recover(api, session)
    assert answer.refusal == (409, "invalid_state")
    details: dict[str, object] = answer.error["details"]
    return details


async def checkpointed(api: Api, keeper: Keeper, content: str = "checkpointed") -> str:
    """Returns a session that was awake when a checkpoint of it was taken."""
    session = await api.session(sleepPolicy={"checkpointEvery": EVERY})
    await write(api, session, content)
    await checkpoint(api, keeper, session)
    return session


async def checkpoint(api: Api, keeper: Keeper, session: str) -> None:
    before = (await stored_of(api, session)).saved
    await api.keep(keeper)
    api.clock.now += EVERY
    await api.keep(keeper)
    saved = (await stored_of(api, session)).saved
    assert saved
    assert saved.is_checkpoint
    assert saved != before


async def lose(api: Api, session: str) -> None:
    """The host loses the session's volume, and the sandbox ends."""
    stored = await stored_of(api, session)
    api.sandboxes.running.pop(stored.sandbox, None)
    await api.sandboxes.volumes.remove(stored.volume)


async def lose_and_start(api: Api, session: str) -> None:
    await lose(api, session)
    await api.lifecycle.transitions.settle()


def age_of(api: Api, told: str) -> int:
    return int(api.clock.now - datetime.fromisoformat(told).timestamp())


async def _stopped_at_the_archive(
    api: Api, session: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> asyncio.Task[Answer]:
    """A recovery that waits for the archive until the gate is opened."""
    names = api.archive.names

    def slowly(prefix: str) -> object:
        gate()
        return names(prefix)

    monkeypatch.setattr(api.archive, "names", slowly)
    recovery = asyncio.create_task(recover(api, session))
    await asyncio.to_thread(gate.reached.wait)
    return recovery


@pytest.mark.parametrize("started", [False, True], ids=["awake", "after a start"])
async def test_the_session_goes_on_from_the_checkpoint_whose_age_is_told(
    api: Api, keeper: Keeper, started: bool
) -> None:
    session = await checkpointed(api, keeper)
    await write(api, session, "since")
    await (lose_and_start if started else lose)(api, session)
    api.clock.now += 25
    lost = await api.call("POST", f"/sessions/{session}/wake")
    before = await stored_of(api, session)
    answer = await recover(api, session)
    age = answer.json["ageSeconds"]
    assert age >= 25
    assert answer.json == {
        "sessionId": session,
        "state": "deep-sleep",
        "recoveredFrom": answer.json["recoveredFrom"],
        "ageSeconds": age,
    }
    assert age_of(api, answer.json["recoveredFrom"]) == age
    assert lost.error["details"] == {"reason": "volume_lost", "recoverable": True, "ageSeconds": age}
    assert f"{age} seconds ago" in lost.error["message"]
    shown = (await api.call("GET", f"/sessions/{session}")).json
    assert (shown["state"], shown["checkpointedAt"]) == ("deep-sleep", answer.json["recoveredFrom"])
    assert (await stored_of(api, session)).last_active == before.last_active
    assert await content_of(api, session) == "checkpointed"


@pytest.mark.parametrize("started", [False, True], ids=["idle", "after a start"])
async def test_a_suspended_session_is_recovered_too(api: Api, keeper: Keeper, started: bool) -> None:
    session = await checkpointed(api, keeper)
    await api.call("POST", f"/sessions/{session}/sleep")
    await (lose_and_start if started else lose)(api, session)
    assert (await recover(api, session)).status == 200
    assert await content_of(api, session) == "checkpointed"


async def test_it_sleeps_wakes_and_is_checkpointed_as_before(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    await recover(api, session)
    await write(api, session, "two")
    await checkpoint(api, keeper, session)
    await lose_and_start(api, session)
    assert (await recover(api, session)).status == 200
    assert await content_of(api, session) == "two"
    await write(api, session, "three")
    await deep_sleep(api, session)
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "three"


async def test_an_awake_session_without_a_checkpoint_goes_on_from_its_deep_sleep(api: Api) -> None:
    session = await evicted(api, "asleep")
    await write(api, session, "since")
    await lose(api, session)
    lost = await api.call("POST", f"/sessions/{session}/wake")
    assert lost.error["details"]["recoverable"] is True
    assert (await recover(api, session)).json["ageSeconds"] == lost.error["details"]["ageSeconds"]
    assert await content_of(api, session) == "asleep"


async def test_a_deep_sleep_that_was_not_archived_in_time_can_be_recovered(api: Api) -> None:
    session = await evicted(api, "asleep")
    await write(api, session, "since")
    api.archive.unreachable = True
    await deep_sleep(api, session)
    await lose(api, session)
    away = await recover(api, session)
    assert away.refusal == (503, "unavailable")
    api.archive.unreachable = False
    assert (await recover(api, session)).status == 200
    assert (await stored_of(api, session)).archived
    assert await content_of(api, session) == "asleep"


async def test_a_sandbox_that_runs_on_without_its_volume_is_ended_unless_it_is_in_use(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    stored = await stored_of(api, session)
    del api.sandboxes.volumes[stored.volume]
    with api.lifecycle.holds.held(session):
        busy = await recover(api, session)
    assert busy.refusal == (409, "session_busy")
    assert stored.sandbox in api.sandboxes.running
    assert (await recover(api, session)).status == 200
    assert stored.sandbox not in api.sandboxes.running
    assert await content_of(api, session) == "checkpointed"


async def test_requests_that_come_meanwhile_wait_and_find_the_files(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    async with opened_at_the_end(Gate()) as gate:
        recovery = await _stopped_at_the_archive(api, session, gate, monkeypatch)
        reading = asyncio.create_task(content_of(api, session))
        await eventually(lambda: api.lifecycle.holds.in_use(session))
    assert (await recovery).status == 200
    assert await reading == "checkpointed"


# --- when nothing is lost, or everything ---


async def test_nothing_changes_where_nothing_is_lost(api: Api, keeper: Keeper) -> None:
    active, idle, cached = [await checkpointed(api, keeper) for _ in range(3)]
    await api.call("POST", f"/sessions/{idle}/sleep")
    await deep_sleep(api, cached)
    archived = await evicted(api, "archived")
    for session in (active, idle, cached, archived):
        before = await stored_of(api, session)
        assert await refused(api, session) == {"reason": "not_lost"}
        assert await stored_of(api, session) == before
    assert await content_of(api, archived) == "archived"


async def test_a_second_recovery_finds_nothing_lost(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    assert (await recover(api, session)).status == 200
    assert await refused(api, session) == {"reason": "not_lost"}


@pytest.mark.parametrize("started", [False, True], ids=["awake", "after a start"])
async def test_a_session_of_which_the_archive_has_nothing_stays_lost(api: Api, started: bool) -> None:
    session = await api.session()
    await write(api, session, "never archived")
    await (lose_and_start if started else lose)(api, session)
    before = await stored_of(api, session)
    nothing = {"reason": "volume_lost", "recoverable": False}
    assert await refused(api, session) == nothing
    for method, path, body in (
        ("POST", f"/sessions/{session}/wake", None),
        ("POST", "/execute", {"sessionId": session, "code": "1"}),
        ("POST", f"/sessions/{session}/fork", {}),
    ):
        assert (await api.call(method, path, body)).error["details"] == nothing
    assert (await stored_of(api, session)).version == before.version


async def test_the_age_is_that_of_the_state_that_the_archive_really_has(api: Api, keeper: Keeper) -> None:
    session = await evicted(api, "asleep")
    await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"checkpointEvery": EVERY}})
    slept = (await stored_of(api, session)).saved
    await write(api, session, "checkpointed")
    await checkpoint(api, keeper, session)
    newest = (await stored_of(api, session)).saved
    assert slept
    assert newest
    await lose_and_start(api, session)
    kept = dict(api.archive.objects)
    api.archive.objects.clear()
    assert (await refused(api, session))["reason"] == "snapshot_damaged"
    api.archive.objects.update({name: content for name, content in kept.items() if name != newest.name})
    answer = await recover(api, session)
    assert answer.json["ageSeconds"] == int(api.clock.now) - slept.taken_at
    assert await content_of(api, session) == "asleep"


async def test_foreign_unknown_and_deleted_ones_are_not_found(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    other = await api.account(name="two")
    foreign = await api.call("POST", f"/sessions/{session}/recover", key=other)
    unknown = await recover(api, "ses_000000000000000000")
    await api.call("DELETE", f"/sessions/{session}")
    for answer in (foreign, unknown, await recover(api, session)):
        assert answer.refusal == (404, "session_not_found")


async def test_a_body_may_be_an_empty_object_alone(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    path = f"/sessions/{session}/recover"
    bodies: tuple[object, ...] = ({"force": True}, [], "now")
    for body in bodies:
        assert (await api.call("POST", path, body)).refusal == (400, "invalid_request")
    assert (await api.call("POST", path, {})).status == 200


# --- whole or not at all ---


async def test_a_repeated_request_gets_the_first_answer_and_recovers_once(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    first = await recover(api, session, Idempotency_Key="once")
    assert first.status == 200
    await write(api, session, "later")
    api.clock.now += 5
    again = await recover(api, session, Idempotency_Key="once")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (first.body, "true")
    assert await content_of(api, session) == "later"


async def test_the_answer_is_stored_together_with_the_change(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    change, answers = api.store.change_session, []

    async def noted(*changed: object, **more: object) -> object:
        answers.append(changed[2])
        return await change(*changed, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(api.store, "change_session", noted)
    told = await recover(api, session, Idempotency_Key="once")
    (answer,) = answers
    assert getattr(answer, "body", None) == told.body


async def test_a_change_that_comes_first_is_kept(api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await checkpointed(api, keeper)
    await lose_and_start(api, session)
    async with opened_at_the_end(Gate()) as gate:
        recovery = await _stopped_at_the_archive(api, session, gate, monkeypatch)
        await api.call("PATCH", f"/sessions/{session}", {"metadata": {"a": 1}})
    assert (await recovery).status == 200
    assert (await api.call("GET", f"/sessions/{session}")).json["metadata"] == {"a": 1}
    assert await content_of(api, session) == "checkpointed"


async def test_nothing_that_the_store_names_goes_and_nothing_of_the_lost_volume_is_used(
    api: Api, keeper: Keeper
) -> None:
    session = await evicted(api, "asleep")
    await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"checkpointEvery": EVERY}})
    await write(api, session, "checkpointed")
    await checkpoint(api, keeper, session)
    lost = await stored_of(api, session)
    assert lost.saved
    objects = set(api.archive.objects)
    await lose_and_start(api, session)
    with capture_logs() as logs:
        await recover(api, session)
    after = await stored_of(api, session)
    assert (after.state, after.archived) == (State.DEEP_SLEEP, True)
    assert after.volume != lost.volume
    assert after.saved
    assert not after.saved.is_checkpoint
    assert (after.saved.name, after.previous) == (lost.saved.name, lost.previous)
    told = next(entry for entry in logs if entry["event"] == "session_recovered")
    assert (told["lost_volume"], told["volume"], told["object"]) == (lost.volume, after.volume, lost.saved.name)
    assert await content_of(api, session) == "checkpointed"
    assert set(api.archive.objects) >= objects
    assert not api.sandboxes.volumes.parents(lost.volume)


async def test_a_volume_that_comes_back_after_the_recovery_is_not_used(api: Api, keeper: Keeper) -> None:
    session = await checkpointed(api, keeper)
    await write(api, session, "since")
    lost = await stored_of(api, session)
    volume = api.sandboxes.volumes[lost.volume]
    await lose_and_start(api, session)
    await recover(api, session)
    await eventually(lambda: not api.lifecycle.holds.lock(session).locked())
    api.sandboxes.volumes[lost.volume] = volume
    await api.lifecycle.transitions.settle()
    assert await content_of(api, session) == "checkpointed"
    await write(api, session, "later")
    await deep_sleep(api, session)
    assert await content_of(api, session) == "later"
