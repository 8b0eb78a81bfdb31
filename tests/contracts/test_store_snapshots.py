"""The contract of `ports.Store` for snapshots, layers and images that accounts make."""

import asyncio
from dataclasses import replace

import pytest

from buntime.errors import (
    IdempotencyInProgress,
    ImageNotFound,
    ResourceLimitExceeded,
    SessionNotFound,
    SnapshotNotFound,
    StaleSession,
)
from buntime.image import NamedImage
from buntime.ports import KeptNumbers, Store
from buntime.session import DESTROYED, Event, SavedVolume
from buntime.snapshot import Layer, MadeImage, Snapshot
from tests.contracts.examples import (
    FULL_LAYER,
    FULL_SNAPSHOT,
    NOW,
    answer,
    layer,
    made_image,
    named,
    session,
    snapshot,
)

SAVED = SavedVolume("lay_one/1", 7, NOW)


async def add(store: Store, added: Snapshot) -> None:
    """Adds the snapshot with a layer of its own."""
    await store.add_snapshot(added, layer(added.layer, added.account, added.image), None, 100)


async def make(store: Store, made: MadeImage, name: str = "mine") -> None:
    """Adds the image with a layer of its own."""
    await store.add_made_image(made, named(made.id, name), layer(made.layer, image=made.base), None, 100)


async def layers(store: Store) -> list[Layer]:
    return list(await store.all_layers())


async def page(store: Store, now: int = NOW, session: str | None = None, name: str | None = None) -> list[str]:
    found, total = await store.list_snapshots("acc_one", now=now, session=session, name=name)
    assert len(found) == total
    return [one.id.removeprefix("snp_") for one in found]


# snapshots


async def test_a_snapshot_and_its_layer_are_found_as_they_were_added(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.add_snapshot(FULL_SNAPSHOT, FULL_LAYER, answer(), 1)
    assert await store.get_snapshot("snp_full") == FULL_SNAPSHOT
    assert await store.get_layer("lay_full") == FULL_LAYER
    assert await store.find_answer("acc_one", "k") == answer()
    assert await store.get_snapshot("snp_none") is None
    assert await store.get_layer("lay_none") is None


async def test_a_snapshot_outlives_its_session(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await store.change_session(session(), session().after(Event.DELETE))
    await store.remove_session("ses_one")
    assert await store.get_snapshot("snp_one") == snapshot()
    assert await store.condemn_layers(NOW) == []


async def test_snapshots_can_share_a_layer(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await store.add_snapshot(snapshot("snp_two"), None, None, 100)
    assert await layers(store) == [layer()]
    await store.remove_snapshot("snp_one")
    assert await store.condemn_layers(NOW) == []


async def refused(store: Store, wanted: Snapshot, new: Layer | None, error: type[Exception], limit: int = 100) -> None:
    """Nothing of the snapshot is stored."""
    before = await layers(store), await page(store), await store.find_answer("acc_one", "k")
    with pytest.raises(error):
        await store.add_snapshot(wanted, new, answer(body=b"second"), limit)
    assert (await layers(store), await page(store), await store.find_answer("acc_one", "k")) == before


async def test_there_is_no_snapshot_of_a_session_that_is_gone_or_being_deleted(store: Store) -> None:
    await refused(store, snapshot(), layer(), SessionNotFound)
    await store.add_session(session(), None, 1)
    await store.change_session(session(), session().after(Event.DELETE))
    await refused(store, snapshot(), layer(), SessionNotFound)


async def test_a_snapshot_on_a_layer_that_is_gone_or_condemned_is_refused(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await refused(store, snapshot(), None, SnapshotNotFound)
    await store.add_layer(layer())
    await store.condemn_layers(NOW)
    await refused(store, snapshot(), None, SnapshotNotFound)


async def test_a_snapshot_with_a_taken_id_is_refused(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await refused(store, snapshot(layer="lay_two"), layer("lay_two"), ValueError)
    await refused(store, snapshot("snp_two"), layer(), ValueError)


async def test_a_snapshot_whose_key_has_an_answer_already_is_refused(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.add_answer(answer(body=b"first"))
    await refused(store, snapshot(), layer(), IdempotencyInProgress)


@pytest.mark.parametrize("image", ["img_gone", "root-gone"])
async def test_a_snapshot_whose_image_nothing_keeps_is_refused(store: Store, image: str) -> None:
    await store.add_session(session(), None, 1)
    await refused(store, snapshot(image=image), layer(image=image), ImageNotFound)


async def test_a_snapshot_over_the_limit_is_refused_with_the_numbers(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot("snp_other", account="acc_two", layer="lay_other"))
    await add(store, snapshot("snp_automatic", layer="lay_auto", is_automatic=True))
    await add(store, snapshot("snp_one", expires_at=NOW + 60))
    await refused(store, snapshot("snp_two"), None, ResourceLimitExceeded, limit=1)
    with pytest.raises(ResourceLimitExceeded) as over:
        await store.add_snapshot(snapshot("snp_two"), None, None, 1)
    assert over.value.details == {"resource": "snapshots", "limit": 1, "scope": "account", "plan": ""}
    assert await store.count_snapshots("acc_one", NOW) == 1
    await store.add_snapshot(snapshot("snp_two", created_at=NOW + 60), None, None, 1)
    assert await store.count_snapshots("acc_one", NOW + 60) == 1


async def test_the_limit_of_snapshots_is_exact_for_many_at_once(store: Store) -> None:
    await store.add_session(session(), None, 1)
    names = [f"{n:03}" for n in range(60)]
    adds = [store.add_snapshot(snapshot(f"snp_{n}", layer=f"lay_{n}"), layer(f"lay_{n}"), answer(n), 40) for n in names]
    outcomes = await asyncio.gather(*adds, return_exceptions=True)
    assert [outcome is None for outcome in outcomes].count(True) == 40
    assert {type(outcome) for outcome in outcomes} == {type(None), ResourceLimitExceeded}
    assert await store.count_snapshots("acc_one", NOW) == 40
    assert len(await layers(store)) == 40
    assert [await store.find_answer("acc_one", n) is None for n in names].count(True) == 20


async def test_a_page_of_snapshots_is_newest_first_with_the_total(store: Store) -> None:
    await store.add_session(session(), None, 1)
    for name, created_at in (("d", 1), ("c", 2), ("b", 3), ("a", 2)):
        await add(store, snapshot(f"snp_{name}", layer=f"lay_{name}", created_at=created_at))
    await add(store, snapshot("snp_x", account="acc_two", layer="lay_x"))
    assert await page(store) == ["b", "a", "c", "d"]
    found, total = await store.list_snapshots("acc_one", now=NOW, limit=2, offset=1)
    assert ([one.id for one in found], total) == (["snp_a", "snp_c"], 4)
    assert await store.list_snapshots("acc_one", now=NOW, offset=9) == ([], 4)
    assert await store.list_snapshots("acc_none", now=NOW) == ([], 0)


async def test_snapshots_of_the_same_second_are_in_the_order_in_which_they_were_added(store: Store) -> None:
    await store.add_session(session(), None, 1)
    for name in "bdac":
        await add(store, snapshot(f"snp_{name}", layer=f"lay_{name}"))
    assert await page(store) == ["c", "a", "d", "b"]
    await store.remove_snapshot("snp_c")
    await store.remove_snapshot("snp_d")
    await add(store, snapshot("snp_d", layer="lay_e"))
    assert await page(store) == ["d", "a", "b"]


async def test_a_page_of_snapshots_can_be_of_a_session_and_of_a_name(store: Store) -> None:
    await store.add_session(session(), None, 2)
    await store.add_session(session("ses_two"), None, 2)
    await add(store, snapshot("snp_a", label="x"))
    for name, of, label in (("b", "ses_one", "y"), ("c", "ses_two", "x"), ("d", "ses_two", None)):
        await store.add_snapshot(snapshot(f"snp_{name}", session=of, label=label), None, None, 9)
    assert await page(store, session="ses_two") == ["d", "c"]
    assert await page(store, name="x") == ["c", "a"]
    assert await page(store, session="ses_two", name="x") == ["c"]
    assert await page(store, name="none") == await page(store, name="") == []


async def test_a_page_has_automatic_snapshots_and_no_expired_ones(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot("snp_a", is_automatic=True))
    await store.add_snapshot(snapshot("snp_b", expires_at=NOW + 60), None, None, 9)
    assert await page(store, NOW + 59) == ["b", "a"]
    assert await page(store, NOW + 60) == ["a"]
    assert await store.get_snapshot("snp_b") == snapshot("snp_b", expires_at=NOW + 60)


async def test_a_snapshot_is_removed_once(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    assert await store.remove_snapshot("snp_one")
    assert not await store.remove_snapshot("snp_one")
    assert await store.get_snapshot("snp_one") is None
    assert await store.get_layer("lay_one") == layer()


async def test_expired_snapshots_are_dropped_and_counted(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot("snp_a"))
    for name, end in (("b", 60), ("c", 61), ("d", 59)):
        await store.add_snapshot(snapshot(f"snp_{name}", expires_at=NOW + end), None, None, 9)
    assert await store.drop_snapshots(NOW + 60) == 2
    assert await store.drop_snapshots(NOW + 60) == 0
    assert await page(store) == ["c", "a"]


async def test_what_an_account_keeps_is_dropped_with_it(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await store.add_snapshot(snapshot("snp_two", is_automatic=True), None, None, 9)
    await add(store, snapshot("snp_other", account="acc_two", layer="lay_other"))
    await make(store, made_image(layer="lay_made"))
    await store.add_image(NamedImage("mine", "root-1", 1, NOW))
    assert await store.drop_kept_of("acc_one") == 3
    assert await store.drop_kept_of("acc_one") == 0
    assert await page(store) == []
    assert await store.get_snapshot("snp_other") is not None
    assert await store.find_image("acc_one", "mine") == NamedImage("mine", "root-1", 1, NOW)
    assert await store.drop_made_images() == ["img_one"]
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_made", "lay_one"]


# layers


async def test_a_layer_of_a_fork_is_found_by_its_key_until_the_fork_ends(store: Store) -> None:
    await store.add_layer(layer(fork="key"))
    await store.add_layer(layer("lay_two", account="acc_two", fork="key"))
    assert await store.find_fork_layer("acc_one", "key") == layer(fork="key")
    assert await store.find_fork_layer("acc_one", "other") is None
    await store.end_fork("lay_one")
    await store.end_fork("lay_one")
    await store.end_fork("lay_none")
    assert await store.find_fork_layer("acc_one", "key") is None
    assert await store.get_layer("lay_one") == layer()
    assert await store.find_fork_layer("acc_two", "key") is not None


async def test_a_fork_without_a_key_is_not_found(store: Store) -> None:
    await store.add_layer(layer())
    await store.add_layer(layer("lay_two"))
    assert await store.find_fork_layer("acc_one", "") is None


async def test_a_taken_layer_id_or_fork_is_refused(store: Store) -> None:
    await store.add_layer(layer(fork="key"))
    for taken in (layer(fork="other"), layer("lay_two", fork="key")):
        with pytest.raises(ValueError, match=taken.id):
            await store.add_layer(taken)
    assert await layers(store) == [layer(fork="key")]


@pytest.mark.parametrize("image", ["img_gone", "root-gone"])
async def test_a_layer_whose_image_nothing_keeps_is_refused(store: Store, image: str) -> None:
    with pytest.raises(ImageNotFound) as missing:
        await store.add_layer(layer(image=image))
    assert missing.value.details == {"image": image}
    assert await layers(store) == []
    await store.add_image(NamedImage("a", image, 1, NOW))
    await store.add_layer(layer(image=image))
    assert await layers(store) == [layer(image=image)]


async def test_layers_are_listed_oldest_first_condemned_ones_too(store: Store) -> None:
    for name, created_at in (("lay_c", NOW + 1), ("lay_b", NOW), ("lay_a", NOW)):
        await store.add_layer(layer(name, created_at=created_at, fork=name))
    await store.add_layer(layer("lay_x", account="acc_two", fork="x", created_at=NOW + 2))
    await store.end_fork("lay_b")
    await store.condemn_layers(0)
    assert [one.id for one in await layers(store)] == ["lay_a", "lay_b", "lay_c", "lay_x"]
    assert [one.id for one in await store.counted_layers("acc_one")] == ["lay_a", "lay_c"]
    assert await store.counted_layers("acc_none") == []


async def test_layers_that_only_automatic_snapshots_refer_to_do_not_count(store: Store) -> None:
    async def counted() -> list[str]:
        found = await store.counted_layers("acc_one")
        assert await store.counted_bytes("acc_one") == sum(one.size for one in found)
        return [one.id for one in found]

    await store.add_session(session(), None, 9)
    assert await counted() == []
    for name in ("a", "b", "c"):
        await add(store, snapshot(f"snp_{name}", layer=f"lay_{name}", is_automatic=True))
    assert await counted() == []
    await store.add_snapshot(snapshot("snp_also", layer="lay_b"), None, None, 9)
    await store.add_made_image(made_image(layer="lay_c"), named(), None, None, 9)
    await add(store, snapshot("snp_d", layer="lay_d"))
    await add(store, snapshot("snp_x", account="acc_two", layer="lay_x"))
    await store.add_layer(layer("lay_fork", fork="k"))
    assert await counted() == ["lay_b", "lay_c", "lay_d", "lay_fork"]
    await store.remove_snapshot("snp_also")
    await store.remove_snapshot("snp_d")
    await store.condemn_layers(0)
    assert await counted() == ["lay_c", "lay_fork"]


async def test_a_layer_is_noted_as_saved_once_unless_it_is_condemned(store: Store) -> None:
    await store.add_layer(layer())
    assert await store.save_layer("lay_one", SAVED)
    assert await store.get_layer("lay_one") == replace(layer(), saved=SAVED)
    assert not await store.save_layer("lay_one", replace(SAVED, name="lay_one/late"))
    assert await store.get_layer("lay_one") == replace(layer(), saved=SAVED)
    assert not await store.save_layer("lay_none", SAVED)
    await store.condemn_layers(NOW)
    assert not await store.save_layer("lay_one", replace(SAVED, name="lay_one/2"))
    assert await store.get_layer("lay_one") == replace(layer(), saved=SAVED, key=DESTROYED)


async def test_a_layer_is_condemned_when_nothing_refers_to_it_any_more(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.add_layer(layer(fork="key"))
    await store.add_snapshot(snapshot(), None, None, 9)
    await store.add_made_image(made_image(), named(), None, None, 9)
    assert await store.condemn_layers(NOW - 1) == []
    await store.end_fork("lay_one")
    assert await store.condemn_layers(NOW) == []
    await store.remove_image("acc_one", "mine")
    assert await store.condemn_layers(NOW) == []
    await store.drop_made_images()
    assert await store.condemn_layers(NOW) == []
    await store.remove_snapshot("snp_one")
    assert await store.get_layer("lay_one") == layer()
    condemned = replace(layer(), key=DESTROYED)
    assert condemned.is_condemned
    assert await store.condemn_layers(NOW) == [condemned]
    assert await store.get_layer("lay_one") == condemned


async def test_a_made_image_keeps_its_layer_when_the_snapshot_is_gone(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await store.add_made_image(made_image(), named(), None, None, 9)
    await store.remove_snapshot("snp_one")
    assert await store.condemn_layers(NOW) == []
    assert await store.get_layer("lay_one") == layer()


async def test_an_old_fork_keeps_its_layer_no_longer(store: Store) -> None:
    for name, created_at in (("lay_a", NOW), ("lay_b", NOW + 1)):
        await store.add_layer(layer(name, fork=name, created_at=created_at))
    assert await store.condemn_layers(NOW) == [replace(layer("lay_a"), key=DESTROYED)]
    assert await store.find_fork_layer("acc_one", "lay_a") is None
    await store.add_layer(layer("lay_c", fork="lay_a"))
    assert await store.find_fork_layer("acc_one", "lay_a") == layer("lay_c", fork="lay_a")


async def test_condemned_layers_are_told_until_they_are_removed(store: Store) -> None:
    for name, created_at in (("lay_c", NOW + 1), ("lay_b", NOW), ("lay_a", NOW)):
        await store.add_layer(layer(name, created_at=created_at))
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_a", "lay_b", "lay_c"]
    await store.remove_layer("lay_b")
    await store.remove_layer("lay_b")
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_a", "lay_c"]
    assert await store.get_layer("lay_b") is None


async def test_a_layer_that_is_not_condemned_cannot_be_removed(store: Store) -> None:
    await store.add_layer(layer())
    with pytest.raises(ValueError, match="lay_one"):
        await store.remove_layer("lay_one")
    assert await layers(store) == [layer()]


async def test_of_a_condemnation_and_a_new_reference_at_once_one_wins(store: Store) -> None:
    await store.add_session(session(), None, 1)
    for n in range(40):
        await store.add_layer(layer(f"lay_{n}"))
    adds = [store.add_snapshot(snapshot(f"snp_{n}", layer=f"lay_{n}"), None, None, 99) for n in range(40)]
    work = [*adds[:20], store.condemn_layers(NOW), *adds[20:]]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    kept = [outcome is None for outcome in outcomes].count(True)
    assert kept + sum(isinstance(outcome, SnapshotNotFound) for outcome in outcomes) == 40
    found, total = await store.list_snapshots("acc_one", now=NOW, limit=100)
    assert total == kept
    for one in found:
        whole = await store.get_layer(one.layer)
        assert whole is not None
        assert not whole.is_condemned


# restoring


RESTORED = replace(session(), image="img-2", image_name="other", volume="vol_new")
BEFORE = snapshot("snp_before", layer="lay_before", created_at=NOW + 1, expires_at=NOW + 60, is_automatic=True)


async def test_a_restore_changes_the_session_and_keeps_what_it_was(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.touch_session("ses_one", NOW + 7)
    await store.changed_sessions()
    changed = await store.restore_session(session(), RESTORED, BEFORE, layer("lay_before"), answer())
    assert changed == replace(RESTORED, version=2, last_active=NOW + 7)
    assert await store.get_session("ses_one") == changed
    assert await store.changed_sessions() == [changed]
    assert await store.list_sessions("acc_one", now=NOW) == ([changed], 1)
    assert await store.get_snapshot("snp_before") == BEFORE
    assert await layers(store) == [layer("lay_before")]
    assert await store.find_answer("acc_one", "k") == answer()


async def test_a_session_has_one_snapshot_from_before_its_last_restore(store: Store) -> None:
    await store.add_session(session(), None, 2)
    await store.add_session(session("ses_two"), None, 2)
    await add(store, snapshot("snp_mine"))
    for n, name in ((1, "a"), (2, "b")):
        old = await store.get_session("ses_one")
        assert old is not None
        before = replace(BEFORE, id=f"snp_{name}", layer=f"lay_{name}", created_at=NOW + n)
        await store.restore_session(old, replace(old, volume=f"vol_{n}"), before, layer(f"lay_{name}"), None)
    other = replace(BEFORE, id="snp_other", layer="lay_other", session="ses_two")
    await store.restore_session(session("ses_two"), session("ses_two"), other, layer("lay_other"), None)
    assert await page(store) == ["b", "other", "mine"]
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_a"]
    assert await store.count_snapshots("acc_one", NOW) == 1


async def test_a_session_can_be_restored_from_before_its_last_restore(store: Store) -> None:
    await store.add_session(session(), None, 1)
    changed = await store.restore_session(session(), RESTORED, BEFORE, layer("lay_before"), None)
    back = replace(changed, image=BEFORE.image, image_name=BEFORE.image_name)
    again = replace(BEFORE, id="snp_again", layer="lay_again", image=RESTORED.image)
    await store.restore_session(changed, back, again, layer("lay_again", image=RESTORED.image), None)
    assert await page(store) == ["again"]
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_before"]


async def test_a_session_is_still_made_of_a_snapshot_that_is_gone(store: Store) -> None:
    made = replace(session(), made_of="snp_one")
    await store.add_session(made, None, 1)
    await add(store, snapshot())
    await store.remove_snapshot("snp_one")
    await store.condemn_layers(NOW)
    changed = await store.change_session(made, replace(made, on_wake="true"))
    assert changed.made_of == "snp_one"
    assert await store.get_session("ses_one") == changed


async def test_a_refused_restore_changes_nothing(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await add(store, snapshot())
    await store.add_snapshot(snapshot("snp_old", is_automatic=True), None, None, 9)
    await store.add_answer(answer("taken", body=b"first"))
    await store.changed_sessions()

    async def refused(
        error: type[Exception],
        old: str = "ses_one",
        version: int = 1,
        image: str = "img-2",
        before: str = "snp_before",
        new_layer: str = "lay_before",
        key: str = "k",
    ) -> None:
        was = replace(session(), id=old, version=version)
        wanted = replace(BEFORE, id=before, layer=new_layer)
        with pytest.raises(error):
            await store.restore_session(
                was, replace(RESTORED, image=image), wanted, layer(new_layer), answer(key, body=b"second")
            )
        assert await store.get_session("ses_one") == session()
        assert await store.changed_sessions() == []
        assert await page(store) == ["old", "one"]
        assert await layers(store) == [layer()]
        assert await store.find_answer("acc_one", "k") is None

    await refused(StaleSession, version=2)
    await refused(ValueError, old="ses_two")
    await refused(ImageNotFound, image="img_gone")
    await refused(ImageNotFound, image="root-gone")
    await refused(ValueError, before="snp_one")
    await refused(ValueError, new_layer="lay_one")
    await refused(IdempotencyInProgress, key="taken")
    await store.remove_session("ses_one")
    with pytest.raises(StaleSession):
        await store.restore_session(session(), RESTORED, BEFORE, layer("lay_before"), None)
    assert await layers(store) == [layer()]


async def test_a_restore_keeps_the_image_that_the_session_leaves(store: Store) -> None:
    await store.add_image(NamedImage("a", "root-1", 1, NOW))
    old = replace(session(), image="root-1", image_name="a")
    await store.add_session(old, None, 1)
    await store.remove_image("", "a")
    before = replace(BEFORE, image="root-1")
    await store.restore_session(old, RESTORED, before, layer("lay_before", image="root-1"), None)
    assert await store.used_images() == {"root-1", "img-2"}


# images that accounts make


async def test_a_made_image_is_found_with_its_name_and_its_layer(store: Store) -> None:
    made = replace(made_image(), env={"TOKEN": "se\ncret", "EMPTY": ""})
    await store.add_made_image(made, named(), layer(), answer(), 1)
    assert await store.get_made_image("img_one") == made
    assert await store.find_image("acc_one", "mine") == named()
    assert await store.find_image("acc_two", "mine") is None
    assert await layers(store) == [layer()]
    assert await store.find_answer("acc_one", "k") == answer()
    assert await store.get_made_image("img_none") is None


async def test_made_images_are_listed_oldest_first(store: Store) -> None:
    for name, created_at in (("c", NOW + 1), ("b", NOW), ("a", NOW)):
        made = made_image(f"img_{name}", layer=f"lay_{name}", created_at=created_at)
        await make(store, made, name)
    assert [made.id for made in await store.all_made_images()] == ["img_a", "img_b", "img_c"]


async def test_an_image_that_is_there_already_gets_another_name_and_keeps_its_layer(store: Store) -> None:
    await make(store, made_image())
    again = replace(made_image(), layer="lay_two", created_at=NOW + 1)
    await store.add_made_image(again, named(name="second"), layer("lay_two"), None, 9)
    assert await store.all_made_images() == [made_image()]
    assert [image.name for image in await store.list_images("acc_one")] == ["mine", "second"]
    assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_two"]


async def test_a_refused_image_leaves_no_name_no_layer_and_no_answer(store: Store) -> None:
    await make(store, made_image())
    await store.add_answer(answer("taken"))
    await store.add_layer(layer("lay_old"))
    await store.condemn_layers(NOW)
    before = await layers(store)

    async def refused(
        error: type[Exception], new: Layer | None, of: str, base: str = "img", limit: int = 9, key: str = "k"
    ) -> None:
        wanted = made_image("img_two", base=base, layer=of)
        with pytest.raises(error):
            await store.add_made_image(wanted, named("img_two", "second"), new, answer(key), limit)
        assert await store.all_made_images() == [made_image()]
        assert await store.list_images("acc_one") == [named()]
        assert await layers(store) == before
        assert await store.find_answer("acc_one", "k") is None

    await refused(ResourceLimitExceeded, layer("lay_two"), "lay_two", limit=1)
    await refused(SnapshotNotFound, None, "lay_none")
    await refused(SnapshotNotFound, None, "lay_old")
    await refused(ImageNotFound, layer("lay_two", image="img_gone"), "lay_two", base="img_gone")
    await refused(ImageNotFound, layer("lay_two", image="root-gone"), "lay_two", base="root-gone")
    await refused(ValueError, layer("lay_one"), "lay_one")
    await refused(IdempotencyInProgress, layer("lay_two"), "lay_two", key="taken")


async def test_the_limit_of_images_counts_the_names_of_the_account(store: Store) -> None:
    await store.add_image(NamedImage("a", "root-1", 1, NOW))
    await store.add_image(NamedImage("b", "root-1", 1, NOW, "acc_two"))
    for name in ("x", "y"):
        await make(store, made_image(f"img_{name}", layer=f"lay_{name}"), name)
    with pytest.raises(ResourceLimitExceeded) as over:
        await store.add_made_image(made_image("img_z", layer="lay_x"), named("img_z", "z"), None, None, 2)
    assert over.value.details == {"resource": "images", "limit": 2, "scope": "account", "plan": ""}
    await store.add_made_image(made_image("img_z", layer="lay_x"), named("img_z", "x"), None, None, 1)
    assert await store.find_image("acc_one", "x") == named("img_z", "x")


async def test_a_made_image_goes_when_nothing_refers_to_it(store: Store) -> None:
    await make(store, made_image())
    await make(store, made_image("img_two", "img_one", "lay_two"), "second")
    on_it = replace(session(), image="img_two", image_name="second")
    await store.add_session(on_it, None, 1)
    await add(store, snapshot(layer="lay_three", image="img_two"))
    for name in ("mine", "second"):
        await store.remove_image("acc_one", name)
    assert await store.drop_made_images() == []
    await store.remove_session("ses_one")
    assert await store.drop_made_images() == []
    await store.remove_snapshot("snp_one")
    assert await store.drop_made_images() == []  # the snapshot's layer is there
    await destroy_layers(store, "lay_three")
    assert await store.drop_made_images() == ["img_two"]
    assert await store.drop_made_images() == []  # the layer of the one above is there
    await destroy_layers(store, "lay_two")
    assert await store.drop_made_images() == ["img_one"]
    await destroy_layers(store, "lay_one")
    assert await layers(store) == []


async def destroy_layers(store: Store, *expected: str) -> None:
    condemned = await store.condemn_layers(NOW)
    assert [one.id for one in condemned] == list(expected)
    for one in condemned:
        await store.remove_layer(one.id)


async def test_a_made_image_stays_while_another_one_is_made_of_it(store: Store) -> None:
    await make(store, made_image())
    await store.add_made_image(made_image("img_two", "img_one"), named("img_two", "second"), None, None, 9)
    await store.remove_image("acc_one", "mine")
    assert await store.drop_made_images() == []
    await store.remove_image("acc_one", "second")
    assert await store.drop_made_images() == ["img_two"]
    assert await store.drop_made_images() == ["img_one"]


async def test_no_image_is_made_of_one_that_was_dropped(store: Store) -> None:
    await make(store, made_image())
    await store.remove_image("acc_one", "mine")
    assert await store.drop_made_images() == ["img_one"]
    with pytest.raises(ImageNotFound):
        await make(store, made_image("img_two", "img_one", "lay_two"), "second")
    assert await store.list_images("acc_one") == []


async def test_images_are_used_by_snapshots_layers_and_made_images(store: Store) -> None:
    for name in "abc":
        await store.add_image(NamedImage(name, f"root-{name}", 1, NOW))
    await store.add_session(session(), None, 1)
    await add(store, snapshot(image="root-a"))
    await store.add_layer(layer("lay_two", image="root-b"))
    await store.add_made_image(made_image(base="root-c", layer="lay_two"), named(), None, None, 9)
    for name in "abc":
        await store.remove_image("", name)
    assert await store.used_images() == {"img", "img_one", "root-a", "root-b", "root-c"}


@pytest.mark.parametrize("holder", ["session", "snapshot", "layer"])
async def test_a_session_can_have_an_image_without_a_name_that_the_account_has(store: Store, holder: str) -> None:
    await store.add_image(NamedImage("a", "root-1", 1, NOW))
    await store.add_session(replace(session("ses_holder"), image="root-1", image_name="a"), None, 9)
    if holder == "snapshot":
        await store.add_layer(layer())
        await store.add_snapshot(snapshot(session="ses_holder", image="root-1"), None, None, 9)
    if holder == "layer":
        await store.add_layer(layer(image="root-1", fork="key"))
    if holder != "session":
        await store.remove_session("ses_holder")
    await store.remove_image("", "a")
    wanted = replace(session(), image="root-1", image_name="a")
    with pytest.raises(ImageNotFound):
        await store.add_session(replace(wanted, account="acc_two"), None, 9)
    await store.add_session(wanted, None, 9)
    assert await store.get_session("ses_one") == wanted


async def test_numbers_count_living_snapshots_and_layers_that_stay(store: Store) -> None:
    await store.add_session(session(), None, 1)
    assert await store.kept_numbers(NOW) == KeptNumbers(0, 0, 0, 0)
    await add(store, snapshot("snp_auto", layer="lay_auto", is_automatic=True))
    await add(store, snapshot("snp_one", layer="lay_one", expires_at=NOW + 60))
    await add(store, snapshot("snp_two", layer="lay_two"))
    await store.save_layer("lay_two", SAVED)
    sizes = sum(each.size for each in await layers(store))
    assert await store.kept_numbers(NOW) == KeptNumbers(2, 3, sizes, 2)
    assert await store.kept_numbers(NOW + 60) == KeptNumbers(1, 3, sizes, 2)
    await store.remove_snapshot("snp_two")
    await store.condemn_layers(NOW)
    assert (await store.kept_numbers(NOW)).layers == 2
