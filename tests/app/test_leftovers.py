"""What killed servers left of uploads is removed, and nothing else."""

import asyncio

import pytest

from buntime.ids import new_layer_id, new_session_id
from buntime.lifecycle.leftovers import OLD_SECONDS, Leftovers
from buntime.ports import ArchiveUnavailable, Upload
from tests.app.serving import Api
from tests.app.sleeping import PATIENCE, Gate, ask_to_sleep, evicted, opened_at_the_end
from tests.waiting import eventually

OBJECT = "1705660200-0123456789ab"


def left(api: Api, name: str, age: float = 0.0) -> Upload:
    upload = Upload(name, f"of {name} {age}", api.clock.now - age)
    api.archive.left.add(upload)
    return upload


def leftovers(api: Api) -> Leftovers:
    return Leftovers(api.store, api.archive, api.saving, api.owners, api.clock)


async def test_uploads_of_known_sessions_and_layers_are_removed_at_once(api: Api) -> None:
    session = await evicted(api, "kept")
    await api.call("POST", f"/sessions/{session}/snapshots", {})
    (layer,) = await api.store.all_layers()
    for owner in (session, layer.id):
        left(api, f"{owner}/{OBJECT}")
    await leftovers(api).sweep()
    assert not api.archive.left


async def test_uploads_of_unknown_sessions_and_layers_are_removed_when_they_are_old(api: Api) -> None:
    owners = [new_session_id(), new_layer_id()]
    for owner in owners:
        left(api, f"{owner}/{OBJECT}", OLD_SECONDS)
    left(api, f"images/root-{32 * '0'}", OLD_SECONDS)
    young = {left(api, f"{owner}/{OBJECT}", OLD_SECONDS - 1) for owner in owners}
    await leftovers(api).sweep()
    assert api.archive.left == young, "another server may still send them"


@pytest.mark.parametrize(
    "name",
    ["photos/2024/one", OBJECT, f"ses_/{OBJECT}", "{session}/other", f"{{session}}/{OBJECT}/more", f"x/{OBJECT}"],
)
async def test_uploads_with_names_that_are_not_ours_stay(api: Api, name: str) -> None:
    other = left(api, name.format(session=await api.session()), 10 * OLD_SECONDS)
    await leftovers(api).sweep()
    assert api.archive.left == {other}


async def test_the_upload_of_a_save_that_is_under_way_stays(api: Api) -> None:
    session = await api.session()
    put = api.archive.put
    async with opened_at_the_end(Gate()) as gate:

        def late(name: str, content: object) -> None:
            left(api, name, 10 * OLD_SECONDS)
            gate()
            put(name, content)  # type: ignore[arg-type]

        api.archive.put = late  # type: ignore[method-assign]
        sleeping = asyncio.create_task(ask_to_sleep(api, session))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        await leftovers(api).sweep()
        assert len(api.archive.left) == 1
        gate.opened.set()
        assert (await sleeping).status == 200
    await eventually(lambda: api.store.sessions[session].archived)
    await leftovers(api).sweep()
    assert not api.archive.left


async def test_a_deleted_session_leaves_no_upload(api: Api) -> None:
    session, other = await evicted(api, "kept"), await evicted(api, "kept")
    left(api, f"{session}/{OBJECT}")
    stays = left(api, f"{other}/{OBJECT}")
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await eventually(lambda: session not in api.store.sessions)
    assert api.archive.left == {stays}


async def test_a_deleted_snapshot_leaves_no_upload(api: Api) -> None:
    session = await api.session()
    made = await api.call("POST", f"/sessions/{session}/snapshots", {})
    (layer,) = await api.store.all_layers()
    left(api, f"{layer.id}/{OBJECT}")
    assert (await api.call("DELETE", f"/snapshots/{made.json['snapshotId']}")).status == 200
    await api.lifecycle.layers.tidy()
    assert not await api.store.all_layers()
    assert not api.archive.left


async def test_a_key_that_may_not_list_uploads_can_delete_sessions(api: Api) -> None:
    session = await evicted(api, "kept")

    def refused(prefix: str) -> list[Upload]:
        raise ArchiveUnavailable("403 Forbidden")

    api.archive.uploads = refused  # type: ignore[method-assign]
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    await eventually(lambda: not api.store.sessions)
    assert not api.archive.objects
