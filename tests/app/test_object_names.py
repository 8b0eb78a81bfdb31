"""Objects in the archive name the epoch of the session's owner, so that no host removes those of a later one."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from buntime.ids import new_layer_id, new_session_id
from buntime.lifecycle.object_names import made_in
from buntime.session import SavedVolume, Session
from tests.app.serving import Api
from tests.app.sleeping import PATIENCE, Gate, ask_to_sleep, content_of, evicted, opened_at_the_end, stored_of, write
from tests.app.test_snapshots import take
from tests.waiting import eventually


async def test_an_object_has_the_epoch_of_the_owner_that_made_it(api: Api) -> None:
    session = await api.session()
    await write(api, session, "one")
    stored = await stored_of(api, session)
    api.store.sessions[session] = replace(stored, epoch=7)
    await ask_to_sleep(api, session)
    await eventually(lambda: api.store.sessions[session].archived)
    assert [made_in(name) for name in api.archive.objects] == [7]


class Paused:
    """The archive, whose next look at its names after a `put` waits for the gate: as on a machine that is paused."""

    def __init__(self, api: Api) -> None:
        self.gate = Gate()
        self._archive, self._names, self._put = api.archive, api.archive.names, api.archive.put
        api.archive.put = self.put  # type: ignore[method-assign]

    def put(self, name: str, content: Iterator[bytes]) -> None:
        self._put(name, content)
        self._archive.names = self.names  # type: ignore[method-assign]

    def names(self, prefix: str) -> Sequence[str]:
        self.gate()
        return self._names(prefix)


async def test_a_host_that_lost_a_session_while_it_tidies_removes_nothing_of_the_next_owner(api: Api) -> None:
    session = await evicted(api, "one")
    await write(api, session, "two")
    paused = Paused(api)
    async with opened_at_the_end(paused.gate) as gate:
        sleeping = asyncio.create_task(ask_to_sleep(api, session))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        theirs = await _taken_over(api, session)
    await sleeping
    await eventually(lambda: not api.saving.under_way)
    assert theirs in api.archive.objects


async def test_what_a_restored_session_saves_stays_although_its_old_objects_go_then(api: Api) -> None:
    """The old sandbox takes long to end, and the session is archived meanwhile."""
    session = await evicted(api, "old")
    snapshot = await take(api, session)
    await write(api, session, "new")
    destroy, gate = api.sandboxes.destroy, asyncio.Event()

    async def late(session: Session) -> None:
        await gate.wait()
        await destroy(session)

    api.sandboxes.destroy = late  # type: ignore[method-assign]
    before = set(api.archive.objects)
    assert (await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})).status == 200
    await ask_to_sleep(api, session)
    await eventually(lambda: api.store.sessions[session].archived)
    gate.set()
    await eventually(lambda: not any("clean up" in task.get_name() for task in asyncio.all_tasks()))
    assert not any(name.startswith(session) for name in before & api.archive.objects.keys())
    await api.lifecycle.archiving.evict(session)
    assert await content_of(api, session) == "old"


async def _taken_over(api: Api, session: str) -> str:
    """Another host claims the session, and saves it. Returns the name of its object."""
    stored = await stored_of(api, session)
    epoch = stored.epoch + 1
    name = f"{session}/{int(api.clock.now):010d}-{epoch}-0123456789ab"
    api.archive.objects[name] = b"theirs"
    saved = SavedVolume(name, 6, int(api.clock.now))
    changed = replace(stored, host="other", epoch=epoch, version=stored.version + 1, saved=saved, previous=stored.saved)
    api.store.sessions[session] = changed
    api.owners.lost.add(session)
    return name


WITHOUT = ("x", "1705660200-0123456789ab", "1705660200-9-9-0123456789ab", "1705660200--0123456789ab")


@pytest.mark.parametrize("name", WITHOUT)
def test_a_name_without_an_epoch_is_older_than_all_others(name: str) -> None:
    assert made_in(f"{new_session_id()}/{name}") == 0
    assert made_in(f"{new_layer_id()}/{name}") == 0
