"""What a host removes from the archive: never what another host, or a later save, has put there."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from buntime.lifecycle.object_names import new_name
from buntime.ports import Peer
from tests.app.serving import Api, serving
from tests.app.sleeping import evicted, stored_of, write

PEER = Peer("hst_other", "192.0.2.7:8443")
EVERY = 60


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(checkpoints=True) as running:
        yield running


def put(api: Api, session: str, epoch: int) -> str:
    """As a host that has put an object of this epoch, and has not named it yet."""
    name = new_name(replace(api.store.sessions[session], epoch=epoch), int(api.clock.now))
    api.archive.objects[name] = b"of another host"
    return name


async def test_a_checkpoint_of_a_session_that_moved_removes_no_object(api: Api) -> None:
    keeper = api.keeper(idle_after=1e9, deep_sleep_after=1e9)
    session = await api.session(sleepPolicy={"checkpointEvery": EVERY})
    await write(api, session, "one")
    await api.keep(keeper)
    api.owners.elsewhere[session] = PEER
    other = put(api, session, epoch=1)
    api.clock.now += EVERY
    await api.keep(keeper)
    assert other in api.archive.objects


async def test_an_earlier_owner_that_goes_on_removes_no_object_of_a_later_one(api: Api) -> None:
    session = await stored_of(api, await evicted(api, "one"))
    left, later = put(api, session.id, session.epoch), put(api, session.id, session.epoch + 1)
    await api.saving.tidy(session, (session.saved, session.previous))
    assert session.saved
    assert set(api.archive.objects) == {session.saved.name, later}
    assert left not in api.archive.objects, "of its own epoch, and without a name"
