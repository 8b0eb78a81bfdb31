"""Sessions are archived and restored, over HTTP, with a fake archive that a test controls."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from buntime.ports import ObjectMissing, VolumeUnsendable
from buntime.session import State
from tests.app.serving import Api
from tests.app.sleeping import (
    content_of,
    deep_sleep,
    evicted,
    read,
    stored_of,
    write,
)
from tests.waiting import eventually


async def test_a_session_in_deep_sleep_is_archived_evicted_and_restored(api: Api) -> None:
    session = await evicted(api, "kept")
    stored = await stored_of(api, session)
    assert stored.archived
    assert stored.saved is not None
    assert list(api.archive.objects) == [stored.saved.name]
    assert len(api.archive.objects[stored.saved.name]) == stored.saved.size
    assert b"kept" not in api.archive.objects[stored.saved.name]
    assert await content_of(api, session) == "kept"
    assert not (await stored_of(api, session)).archived, "an active session may change its volume"


async def test_only_the_newest_object_and_the_one_before_are_kept(api: Api) -> None:
    session = await evicted(api, "one", "two", "three", "four")
    stored = await stored_of(api, session)
    assert stored.saved
    assert stored.previous
    assert set(api.archive.objects) == {stored.saved.name, stored.previous.name}
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await eventually(lambda: not api.store.sessions)
    assert not api.archive.objects


async def test_only_an_archived_session_in_deep_sleep_is_evicted(api: Api) -> None:
    session = await api.session()
    await api.lifecycle.archiving.evict(session)
    api.archive.unreachable = True
    await deep_sleep(api, session)
    await api.lifecycle.archiving.evict(session)
    assert api.sandboxes.volumes


async def test_requests_that_come_together_share_one_restore(api: Api) -> None:
    session = await evicted(api, "kept")
    get, read = api.archive.get, 0

    def counted(name: str) -> Iterator[bytes]:
        nonlocal read
        read += 1
        return get(name)

    api.archive.get = counted  # type: ignore[method-assign]
    assert await asyncio.gather(*(content_of(api, session) for _ in range(8))) == ["kept"] * 8
    assert read == 1


# --- damage ---


async def test_a_damaged_newest_snapshot_is_logged_and_the_previous_one_is_used(api: Api) -> None:
    session = await evicted(api, "one", "two")
    before = await stored_of(api, session)
    assert before.saved
    del api.archive.objects[before.saved.name]
    with capture_logs() as logs:
        assert await content_of(api, session) == "one"
    assert "previous_snapshot_used" in [entry["event"] for entry in logs]
    after = await stored_of(api, session)
    assert (after.saved, after.previous) == (before.previous, None), "the damaged snapshot must not be used again"


async def test_without_a_whole_snapshot_a_session_stays_as_it_is_and_says_why(api: Api) -> None:
    session = await evicted(api, "one", "two")
    good, before = dict(api.archive.objects), await stored_of(api, session)
    api.archive.objects.clear()
    for _ in range(2):
        refused = await read(api, session)
        assert refused.refusal == (409, "invalid_state")
        assert (refused.error["details"]["reason"], refused.error["retryable"]) == ("snapshot_damaged", False)
    assert replace(await stored_of(api, session), last_active=0) == replace(before, last_active=0)
    api.archive.objects |= good
    assert await content_of(api, session) == "two"


# --- an archive that is unreachable, wrong or full ---


async def test_an_unreachable_archive_is_a_retryable_failure(api: Api) -> None:
    session = await evicted(api, "kept")
    api.archive.unreachable = True
    refused = await read(api, session)
    assert refused.refusal == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await stored_of(api, session)).state is State.DEEP_SLEEP
    api.archive.unreachable = False
    assert await content_of(api, session) == "kept"


def _away(api: Api) -> None:
    api.archive.unreachable = True


def _lying(api: Api) -> None:
    api.archive.lying = True


def _full(api: Api) -> None:
    api.archive.capacity = 0


def _forgetful(api: Api) -> None:
    """Makes the archive lose every object that is put."""

    def get(name: str) -> Iterator[bytes]:
        raise ObjectMissing(name)

    api.archive.get = get  # type: ignore[method-assign]


def _unsendable(api: Api) -> None:
    def send(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        raise VolumeUnsendable("its paths are too long")
        yield b""

    api.sandboxes.volumes.send = send  # type: ignore[method-assign]


@pytest.mark.parametrize("wrong", [_away, _lying, _full, _forgetful, _unsendable])
async def test_a_session_that_cannot_be_archived_sleeps_on_its_host_until_it_can(api: Api, wrong: object) -> None:
    assert callable(wrong)
    session = await api.session()
    await write(api, session, "kept")
    right = vars(api.archive) | {"objects": {}}
    send = api.sandboxes.volumes.send
    wrong(api)
    await deep_sleep(api, session)
    await api.keep(api.keeper())
    stored = await stored_of(api, session)
    assert (stored.archived, stored.saved) == (False, None)
    assert not api.archive.objects, "failed attempts must leave nothing"
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "kept"
    vars(api.archive).clear()
    vars(api.archive).update(right)
    api.sandboxes.volumes.send = send  # type: ignore[method-assign]
    await deep_sleep(api, session)
    assert (await stored_of(api, session)).archived


async def test_a_volume_that_cannot_be_archived_is_tried_again_only_after_a_wake(api: Api) -> None:
    session, attempts = await api.session(), 0

    def send(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        nonlocal attempts
        attempts += 1
        raise VolumeUnsendable("its paths are too long")
        yield b""

    api.sandboxes.volumes.send = send  # type: ignore[method-assign]
    await deep_sleep(api, session)
    keeper = api.keeper(tick=1.0)
    for _ in range(10):
        api.clock.now += 100
        await api.keep(keeper)
    assert attempts == 1
    await api.call("POST", f"/sessions/{session}/wake")
    await deep_sleep(api, session)
    assert attempts == 2


async def test_each_failed_save_doubles_the_wait_before_the_next(api: Api) -> None:
    session, attempts = await api.session(), 0
    api.archive.unreachable = True
    await deep_sleep(api, session)
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
    assert (await stored_of(api, session)).archived
    succeeded = attempts
    await api.keep(keeper)
    assert attempts == succeeded, "an archived session must not be saved again"


async def test_objects_of_a_deleted_session_are_removed_when_the_archive_is_back(api: Api) -> None:
    session = await evicted(api, "one", "two")
    api.archive.unreachable = True
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    assert (await api.call("GET", f"/sessions/{session}")).status == 404
    keeper = api.keeper(tick=1.0)
    await api.keep(keeper)
    stored = await stored_of(api, session)
    assert stored.state is State.DELETING
    assert stored.key == "destroyed", "without its key, remaining objects must be unreadable"
    api.archive.unreachable = False
    for _ in range(5):
        api.clock.now += 5
        await api.keep(keeper)
    assert not api.archive.objects
    assert not api.store.sessions
