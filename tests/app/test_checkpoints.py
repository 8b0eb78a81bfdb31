"""Checkpoints of sessions that are awake, over HTTP, with a fake archive."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from buntime.errors import Unavailable
from buntime.lifecycle import chains
from buntime.lifecycle.keeper import Keeper
from buntime.session import SavedVolume, Session
from tests.app.serving import Api, serving
from tests.app.sleeping import Gate, content_of, deep_sleep, opened_at_the_end, stored_of, write
from tests.waiting import eventually

EVERY = 60
BIG = random.Random(1).randbytes(20_000).hex()


@pytest.fixture(autouse=True)
def _small_objects_are_worth_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "LINK_BYTES", 1)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(checkpoints=True) as running:
        yield running


@pytest.fixture
def keeper(api: Api) -> Keeper:
    return api.keeper(idle_after=1e9, deep_sleep_after=1e9)


async def opened(api: Api, **fields: object) -> str:
    """Returns a session with a big file."""
    session = await api.session(sleepPolicy={"checkpointEvery": EVERY}, **fields)
    body = {"sessionId": session, "path": "big", "content": BIG}
    assert (await api.call("POST", "/files/write", body)).status == 200
    return session


async def pass_time(api: Api, keeper: Keeper, seconds: float = EVERY) -> None:
    """The keeper ticks now and when so many seconds have passed."""
    await api.keep(keeper)
    api.clock.now += seconds
    await api.keep(keeper)


async def shown(api: Api, session: str) -> tuple[object, object]:
    seen = (await api.call("GET", f"/sessions/{session}")).json
    return seen["sleepPolicy"]["checkpointEvery"], seen["checkpointedAt"]


async def saved_of(api: Api, session: str) -> SavedVolume:
    saved = (await stored_of(api, session)).saved
    assert saved
    return saved


async def lose_the_volume(api: Api, session: str) -> None:
    """As a host that lost its disk and starts again."""
    stored = await stored_of(api, session)
    api.sandboxes.running.clear()
    await api.sandboxes.volumes.remove(stored.volume)
    await api.lifecycle.transitions.settle()


# --- what a client asks for and sees ---


async def test_a_session_has_the_plans_checkpoints_unless_it_says_otherwise(api: Api) -> None:
    default = await api.session()
    assert await shown(api, default) == (300, None)
    for asked in (5, 86400, "never"):
        session = await api.session(sleepPolicy={"checkpointEvery": asked})
        assert (await shown(api, session))[0] == asked
        listed = {each["sessionId"]: each for each in (await api.call("GET", "/sessions")).json["sessions"]}
        assert listed[session]["sleepPolicy"]["checkpointEvery"] == asked
    assert (await shown(api, await api.session(sleepPolicy={})))[0] == 300


async def test_where_the_archive_is_a_directory_nothing_is_checkpointed_until_a_session_asks() -> None:
    async with serving() as api:
        keeper = api.keeper(idle_after=1e9, deep_sleep_after=1e9)
        session = await api.session()
        assert await shown(api, session) == ("never", None)
        await write(api, session, "one")
        await pass_time(api, keeper, 10_000)
        assert not api.archive.objects
        patched = await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"checkpointEvery": 60}})
        assert patched.json["sleepPolicy"]["checkpointEvery"] == 60
        await pass_time(api, keeper)
        assert len(api.archive.objects) == 1


async def test_an_accounts_own_number_replaces_the_plans(api: Api) -> None:
    key = await api.account(name="two", checkpoint_every=30)
    made = await api.call("POST", "/sessions/create", {}, key=key)
    seen = await api.call("GET", f"/sessions/{made.json['sessionId']}", key=key)
    assert seen.json["sleepPolicy"]["checkpointEvery"] == 30


async def test_a_patch_replaces_the_policy_and_null_restores_the_default(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    for asked, now in ((7, 7), ("never", "never")):
        patched = await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"checkpointEvery": asked}})
        assert patched.json["sleepPolicy"]["checkpointEvery"] == now
    await pass_time(api, keeper, 10_000)
    assert not api.archive.objects
    policies: tuple[object, ...] = (None, {})
    for policy in policies:
        await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": {"checkpointEvery": 7}})
        patched = await api.call("PATCH", f"/sessions/{session}", {"sleepPolicy": policy})
        assert patched.json["sleepPolicy"]["checkpointEvery"] == 300
    untouched = await api.call("PATCH", f"/sessions/{session}", {"metadata": {"a": 1}})
    assert untouched.json["sleepPolicy"]["checkpointEvery"] == 300
    await pass_time(api, keeper, 300)
    assert len(api.archive.objects) == 1


async def test_a_fork_inherits_the_policy_unless_it_says_otherwise(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    for asked, every in (({}, EVERY), ({"sleepPolicy": {"checkpointEvery": "never"}}, "never")):
        made = await api.call("POST", f"/sessions/{session}/fork", asked)
        fork = made.json["sessions"][0]["session"]["sessionId"]
        assert await shown(api, fork) == (every, None)


@pytest.mark.parametrize("every", [0, 4, 86401, -1, 1.5, "always", "5", True, None])
@pytest.mark.parametrize("path", ["/sessions/create", "/sessions/SESSION/fork", "/sessions/SESSION"])
async def test_a_wrong_interval_is_refused_by_name(api: Api, path: str, every: object) -> None:
    session = await api.session()
    path = path.replace("SESSION", session)
    method = "PATCH" if path.endswith(session) else "POST"
    refused = await api.call(method, path, {"sleepPolicy": {"checkpointEvery": every}})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"]["field"] == "sleepPolicy.checkpointEvery"


async def test_other_fields_of_the_policy_are_unknown(api: Api) -> None:
    refused = await api.call("POST", "/sessions/create", {"sleepPolicy": {"checkpoint_every": 60}})
    unknown = await api.call("POST", "/sessions/create", {"checkpoint_every": 60})
    assert refused.refusal == unknown.refusal == (400, "invalid_request")


# --- checkpoints ---


async def test_what_changed_is_archived_in_time_while_the_session_goes_on(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await write(api, session, "one")
    sandbox = (await stored_of(api, session)).sandbox
    await pass_time(api, keeper)
    first = await saved_of(api, session)
    assert set(api.archive.objects) == {first.name}
    assert first.size > 20_000
    assert await shown(api, session) == (EVERY, "2024-01-19T10:31:00Z")
    await write(api, session, "two")
    await pass_time(api, keeper)
    second = await saved_of(api, session)
    assert second.below == (first.name,)
    assert second.size < 1_000
    assert (await shown(api, session))[1] == "2024-01-19T10:32:00Z"
    stored = await stored_of(api, session)
    assert (stored.state, stored.archived, stored.sandbox) == ("active", False, sandbox)
    assert api.sandboxes.volumes.parents(stored.volume) == {second.mark}


async def test_a_session_that_changes_nothing_makes_no_object_and_its_time_stays(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await write(api, session, "zero")
    await pass_time(api, keeper)
    before = await saved_of(api, session)
    for _ in range(5):
        await content_of(api, session)
        await pass_time(api, keeper)
    assert await saved_of(api, session) == before
    await write(api, session, "one")
    await pass_time(api, keeper)
    assert await saved_of(api, session) != before


async def test_nothing_is_archived_long_before_it_is_due(api: Api, keeper: Keeper) -> None:
    await opened(api)
    await pass_time(api, keeper, EVERY / 2 - 1)
    assert not api.archive.objects


async def test_a_suspended_session_is_archived_once_and_looked_at_no_more(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    await write(api, session, "one")
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})).json["state"] == "idle"
    await pass_time(api, keeper)
    assert len((await saved_of(api, session)).links) == 2
    looked = 0
    changed = api.sandboxes.volumes.changed

    async def counted(states: dict[str, str]) -> object:
        nonlocal looked
        looked += 1
        return await changed(states)

    api.sandboxes.volumes.changed = counted  # type: ignore[method-assign,assignment]
    for _ in range(5):
        await pass_time(api, keeper)
    assert looked == 1
    assert (await stored_of(api, session)).state == "idle"
    await write(api, session, "two")
    await pass_time(api, keeper)
    assert len((await saved_of(api, session)).links) == 3


async def test_a_deep_sleep_goes_on_from_a_checkpoint_and_counts_as_one(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    first = await saved_of(api, session)
    await write(api, session, "two")
    api.clock.now += 1
    await deep_sleep(api, session)
    stored = await stored_of(api, session)
    assert stored.archived
    assert stored.saved
    assert stored.saved.below == (first.name,)
    assert (await shown(api, session))[1] == "2024-01-19T10:31:01Z"
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "two"
    await write(api, session, "three")
    await pass_time(api, keeper)
    assert len((await saved_of(api, session)).links) == 3


async def test_a_session_that_wakes_is_not_checkpointed_at_once(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await deep_sleep(api, session)
    await api.keep(keeper)
    saved = await saved_of(api, session)
    api.clock.now += 10 * EVERY
    await write(api, session, "two")
    await pass_time(api, keeper, 1)
    assert await saved_of(api, session) == saved
    await pass_time(api, keeper)
    assert await saved_of(api, session) != saved


async def test_what_is_archived_is_removed_with_the_session(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    for content in ("one", "two"):
        await write(api, session, content)
        await pass_time(api, keeper)
    assert len(api.archive.objects) == 2
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await api.keep(keeper)
    assert not api.archive.objects
    assert not api.store.sessions


async def test_checkpoints_make_chains_that_end(api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    session, lengths = await opened(api), list[int]()
    for number in range(7):
        await write(api, session, str(number))
        await pass_time(api, keeper)
        lengths.append(len((await saved_of(api, session)).links))
    assert lengths == [1, 2, 3, 4, 5, 1, 2], "an awake session is not folded beside its saves"
    stored = await stored_of(api, session)
    assert stored.previous
    assert set(api.archive.objects) == {*(await saved_of(api, session)).links, *stored.previous.links}


# --- nothing waits for one ---


async def test_requests_sleeps_wakes_and_deletes_do_not_wait_for_a_checkpoint(api: Api, keeper: Keeper) -> None:
    session, other = await opened(api), await opened(api)
    async with opened_at_the_end(Gate()) as gate:
        put = api.archive.put

        def stuck(name: str, content: Iterator[bytes]) -> None:
            gate()
            put(name, content)

        api.archive.put = stuck  # type: ignore[method-assign]
        await api.keep(keeper)
        api.clock.now += EVERY
        await keeper.tick()
        await asyncio.to_thread(gate.reached.wait)
        await write(api, session, "one")
        assert (await api.call("POST", f"/sessions/{session}/snapshots", {})).status == 200
        for _ in range(2):
            assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "idle"})).json["state"] == "idle"
            assert (await api.call("POST", f"/sessions/{session}/wake")).json["state"] == "active"
        assert await content_of(api, session) == "one"
        assert (await api.call("DELETE", f"/sessions/{other}")).status == 200
        assert (await api.call("GET", f"/sessions/{other}")).status == 404
    await eventually(lambda: keeper.at_rest)
    api.archive.put = put  # type: ignore[method-assign]
    await pass_time(api, keeper)
    assert {name.partition("/")[0] for name in api.archive.objects if name.startswith("ses_")} == {session}


async def test_a_volume_that_changes_while_it_is_sent_is_archived_as_it_was_at_one_moment(
    api: Api, keeper: Keeper
) -> None:
    session = await opened(api)
    await write(api, session, "one")
    async with opened_at_the_end(Gate()) as gate:
        put = api.archive.put

        def slow(name: str, content: Iterator[bytes]) -> None:
            first = next(content)
            gate()
            put(name, iter([first, *content]))

        api.archive.put = slow  # type: ignore[method-assign]
        await api.keep(keeper)
        api.clock.now += EVERY
        await keeper.tick()
        await asyncio.to_thread(gate.reached.wait)
        await write(api, session, "two")
    await eventually(lambda: keeper.at_rest)
    api.archive.put = put  # type: ignore[method-assign]
    assert not await _is_current(api, session)
    await pass_time(api, keeper)
    assert await _is_current(api, session)
    assert await content_of(api, session) == "two"


async def _is_current(api: Api, session: str) -> bool:
    stored = await stored_of(api, session)
    assert stored.saved
    return not await api.sandboxes.volumes.changed({stored.volume: stored.saved.mark})


async def test_at_most_two_saves_run_and_every_session_gets_its_turn(api: Api, keeper: Keeper) -> None:
    sessions = [await opened(api) for _ in range(7)]
    at_once, most = 0, 0
    put = api.archive.put

    def counted(name: str, content: Iterator[bytes]) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        put(name, content)
        at_once -= 1

    api.archive.put = counted  # type: ignore[method-assign]
    await pass_time(api, keeper)
    for _ in range(4):
        await api.keep(keeper)
    assert {name.partition("/")[0] for name in api.archive.objects} == set(sessions)
    assert most <= 2


async def test_many_quiet_sessions_are_not_looked_at_in_each_tick(api: Api, keeper: Keeper) -> None:
    sessions = [await api.session() for _ in range(50)]
    for _ in range(30):
        await pass_time(api, keeper, 300)
    assert len(api.archive.objects) == len(sessions)
    read = 0
    get = api.store.get_session

    async def counted(session_id: str) -> object:
        nonlocal read
        read += 1
        return await get(session_id)

    api.store.get_session = counted  # type: ignore[method-assign,assignment]
    for _ in range(100):
        await pass_time(api, keeper, 1)
    assert read == 0


# --- failures ---


async def test_while_the_archive_is_away_sessions_go_on_and_are_archived_later(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    before = await saved_of(api, session)
    await write(api, session, "two")
    api.archive.unreachable = True
    await pass_time(api, keeper)
    assert await saved_of(api, session) == before
    assert await content_of(api, session) == "two"
    assert api.sandboxes.volumes.parents((await stored_of(api, session)).volume) == {before.mark}
    await pass_time(api, keeper, 40)
    assert "buntime_checkpoint_late_seconds 40.0" in (await api.metrics()).body.decode()
    api.archive.unreachable = False
    await pass_time(api, keeper)
    assert (await saved_of(api, session)).below == (before.name,)
    assert "buntime_checkpoint_late_seconds 0.0" in (await api.metrics()).body.decode()


async def test_sessions_are_archived_after_the_store_was_away_when_they_were_due(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [await opened(api) for _ in range(3)]
    get, reads = api.store.get_session, 0

    async def away(session_id: str) -> Session | None:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise Unavailable("The server cannot reach its database right now.")
        return await get(session_id)

    await api.keep(keeper)
    api.clock.now += EVERY
    with monkeypatch.context() as patch:
        patch.setattr(api.store, "get_session", away)
        api.lifecycle.checkpoints.begin_due(api.clock.now)
        await eventually(lambda: api.lifecycle.checkpoints.at_rest)
    for _ in range(3):
        await pass_time(api, keeper, 5)
    assert {name.split("/")[0] for name in api.archive.objects} == set(sessions)


async def test_a_session_is_archived_again_although_the_store_was_away_after_a_checkpoint(
    api: Api, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await opened(api)
    checkpoint = api.lifecycle.checkpoints._checkpoint

    async def away(_: str) -> Session | None:
        raise Unavailable("The server cannot reach its database right now.")

    with monkeypatch.context() as patch:

        async def and_then_away(session_id: str) -> bool:
            done = await checkpoint(session_id)
            await keeper.tick()  # it hears of the checkpoint while that is under way
            patch.setattr(api.store, "get_session", away)
            return done

        patch.setattr(api.lifecycle.checkpoints, "_checkpoint", and_then_away)
        await api.keep(keeper)
        api.clock.now += EVERY
        api.lifecycle.checkpoints.begin_due(api.clock.now)
        await eventually(lambda: api.lifecycle.checkpoints.at_rest)
    before = await saved_of(api, session)
    await write(api, session, "two")
    await pass_time(api, keeper, EVERY + 5)
    assert await saved_of(api, session) != before


async def test_an_object_that_cannot_be_read_back_is_not_named_and_does_not_stay(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    api.archive.lying = True
    await pass_time(api, keeper)
    assert (await stored_of(api, session)).saved is None
    assert not api.archive.objects
    assert not api.sandboxes.volumes.parents((await stored_of(api, session)).volume)


async def test_a_session_that_got_other_files_meanwhile_does_not_get_the_checkpoint_of_its_old_ones(
    api: Api, keeper: Keeper
) -> None:
    session = await opened(api)
    snapshot = (await api.call("POST", f"/sessions/{session}/snapshots", {})).json["snapshotId"]
    await write(api, session, "two")
    async with opened_at_the_end(Gate()) as gate:
        put = api.archive.put

        def stuck(name: str, content: Iterator[bytes]) -> None:
            gate()
            put(name, content)

        await api.keep(keeper)
        api.clock.now += EVERY
        api.archive.put = stuck  # type: ignore[method-assign]
        await keeper.tick()
        await asyncio.to_thread(gate.reached.wait)
        restored = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
        assert (restored.status, restored.json["checkpointedAt"]) == (200, None)
    await eventually(lambda: keeper.at_rest)
    assert (await stored_of(api, session)).saved is None
    assert not [name for name in api.archive.objects if name.startswith(session)]


# --- never silently older ---


async def test_a_session_whose_volume_is_lost_never_goes_on_from_a_checkpoint(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await deep_sleep(api, session)
    await write(api, session, "two")
    await pass_time(api, keeper)
    objects = set(api.archive.objects)
    assert len(objects) == 2
    await lose_the_volume(api, session)
    for method, path, body in (
        ("POST", f"/sessions/{session}/wake", None),
        ("GET", f"/files/read?sessionId={session}&path=file", None),
        ("POST", f"/sessions/{session}/snapshots", {}),
    ):
        lost = await api.call(method, path, body)
        assert lost.refusal == (409, "invalid_state")
        assert lost.error["details"]["reason"] == "volume_lost"
    await pass_time(api, keeper, 10 * EVERY)
    assert set(api.archive.objects) == objects, "the operator may need them"
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await api.keep(keeper)
    assert not api.archive.objects


async def test_a_volume_that_is_back_is_used_and_archived(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    await write(api, session, "two")
    stored = await stored_of(api, session)
    volume = api.sandboxes.volumes[stored.volume]
    await lose_the_volume(api, session)
    assert (await api.call("POST", f"/sessions/{session}/wake")).status == 409
    api.sandboxes.volumes[stored.volume] = volume
    await api.lifecycle.transitions.settle()
    assert not (await stored_of(api, session)).archived
    await api.keep(keeper)
    assert (await stored_of(api, session)).archived
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "two"


async def test_a_volume_that_is_back_is_not_evicted_in_favour_of_a_checkpoint(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await pass_time(api, keeper)
    await write(api, session, "two")
    stored = await stored_of(api, session)
    volume = api.sandboxes.volumes[stored.volume]
    await lose_the_volume(api, session)
    api.sandboxes.volumes[stored.volume] = volume  # mounted again, without a start
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "two"


async def test_a_checkpoint_below_a_damaged_deep_sleep_is_a_state_to_fall_back_to(api: Api, keeper: Keeper) -> None:
    session = await opened(api)
    await write(api, session, "one")
    await pass_time(api, keeper)
    await write(api, session, "two")
    await deep_sleep(api, session)
    await api.lifecycle.archiving.evict(session)
    del api.archive.objects[(await saved_of(api, session)).name]
    assert await content_of(api, session) == "one"
    await deep_sleep(api, session)
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "one"
