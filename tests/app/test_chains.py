"""What a session archives after its first deep sleep is what changed, over HTTP, with a fake archive."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from buntime.lifecycle import chains
from buntime.ports import Strain, VolumeUnsendable
from buntime.session import SavedVolume
from tests.app.serving import Api
from tests.app.sleeping import content_of, deep_sleep, stored_of, write
from tests.waiting import eventually

BIG = random.Random(1).randbytes(20_000).hex()


@pytest.fixture(autouse=True)
def _small_objects_are_worth_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "LINK_BYTES", 1)


async def write_to(api: Api, session: str, path: str, content: str) -> None:
    body = {"sessionId": session, "path": path, "content": content}
    assert (await api.call("POST", "/files/write", body)).status == 200


async def slept(api: Api, *contents: str) -> str:
    """Returns a session with a big file, which wrote each content and then slept. Its volume is still here."""
    session = await api.session()
    await write_to(api, session, "big", BIG)
    for content in contents:
        await sleep_with(api, session, content)
    return session


async def sleep_with(api: Api, session: str, content: str) -> None:
    await write(api, session, content)
    await deep_sleep(api, session)
    api.clock.now += 1


async def saved_of(api: Api, session: str) -> SavedVolume:
    stored = await stored_of(api, session)
    assert stored.archived
    assert stored.saved
    return stored.saved


async def chain_before_fold(api: Api, session: str) -> SavedVolume:
    await folded(api, session)
    before = (await stored_of(api, session)).previous
    assert before
    return before


async def folded(api: Api, session: str) -> SavedVolume:
    """The full object that the session's chain is folded into."""

    def is_folded() -> bool:
        saved = api.store.sessions[session].saved
        return saved is not None and not saved.below and not api.lifecycle.archiving._saving.under_way

    await eventually(is_folded, "the chain to be folded")
    return await saved_of(api, session)


async def evict(api: Api, session: str) -> None:
    volume = (await stored_of(api, session)).volume
    while api.sandboxes.volumes.exists(volume):  # a fold that has just ended cleans up
        await api.lifecycle.archiving.evict(session)
        await asyncio.sleep(0)


async def big_of(api: Api, session: str) -> str:
    answer = await api.call("GET", f"/files/read?sessionId={session}&path=big")
    content: str = answer.json["content"]
    return content


async def test_a_second_sleep_archives_what_changed_and_all_of_it_is_restored(api: Api) -> None:
    session = await slept(api, "one", "two")
    saved = await saved_of(api, session)
    assert len(saved.below) == 1
    assert saved.sizes[0] > 20_000
    assert saved.size < 1_000
    assert {name: len(content) for name, content in api.archive.objects.items()} == dict(
        zip(saved.links, (*saved.sizes, saved.size), strict=True)
    )
    await evict(api, session)
    assert await content_of(api, session) == "two"
    assert await big_of(api, session) == BIG


async def test_what_was_deleted_stays_deleted(api: Api) -> None:
    session = await slept(api, "one", "two")
    await content_of(api, session)
    assert (await api.call("DELETE", f"/files/delete?sessionId={session}&path=file")).status == 200
    await deep_sleep(api, session)
    assert len((await saved_of(api, session)).links) == 3
    await evict(api, session)
    assert (await api.call("GET", f"/files/read?sessionId={session}&path=file")).status == 404
    assert await big_of(api, session) == BIG


async def test_a_chain_goes_on_from_a_volume_that_was_restored(api: Api) -> None:
    session = await slept(api, "one", "two")
    for content in ("three", "four"):
        await evict(api, session)
        await sleep_with(api, session, content)
    assert len((await saved_of(api, session)).links) == 4
    await evict(api, session)
    assert await content_of(api, session) == "four"
    assert await big_of(api, session) == BIG


async def test_the_numbers_tell_full_objects_from_increments(api: Api) -> None:
    session = await slept(api, "one", "two", "three")
    saved = await saved_of(api, session)
    numbers = api.lifecycle.archiving._saving.numbers
    assert (numbers.saved, numbers.full, numbers.increments) == (3, 1, 2)
    assert (numbers.full_bytes, numbers.increment_bytes) == (saved.sizes[0], saved.sizes[1] + saved.size)


async def test_a_session_that_is_deleted_leaves_no_link(api: Api) -> None:
    session = await slept(api, "one", "two", "three")
    assert len(api.archive.objects) == 3
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    keeper = api.keeper()
    await api.keep(keeper)
    assert not api.archive.objects
    assert not api.store.sessions


# --- damage ---


def _flip(api: Api, name: str) -> None:
    content = bytearray(api.archive.objects[name])
    content[len(content) // 2] ^= 1
    api.archive.objects[name] = bytes(content)


def _cut(api: Api, name: str) -> None:
    api.archive.objects[name] = api.archive.objects[name][:-1]


def _remove(api: Api, name: str) -> None:
    del api.archive.objects[name]


@pytest.mark.parametrize("damage", [_flip, _cut, _remove])
@pytest.mark.parametrize(("at", "left"), [(1, "one"), (2, "two"), (3, "three")])
async def test_the_longest_whole_part_of_a_chain_is_used_and_that_is_logged(
    api: Api, damage: Callable[[Api, str], None], at: int, left: str
) -> None:
    session = await slept(api, "one", "two", "three", "four")
    links = (await saved_of(api, session)).links
    await evict(api, session)
    damage(api, links[at])
    with capture_logs() as logs:
        assert await content_of(api, session) == left
    assert await big_of(api, session) == BIG
    events = [entry["event"] for entry in logs]
    assert (events.count("snapshot_damaged"), events.count("previous_snapshot_used")) == (1, 1)
    assert api.lifecycle.archiving._saving.numbers.damaged == 1
    stored = await stored_of(api, session)
    assert stored.saved
    assert (stored.saved.links, stored.previous) == (links[:at], None), "the damaged link must not be used again"
    await sleep_with(api, session, "five")
    saved = await saved_of(api, session)
    assert saved.below == links[:at]
    await evict(api, session)
    assert await content_of(api, session) == "five"


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 3), (1, 3), (0, 1)])
async def test_exchanged_links_do_not_open(api: Api, one: int, other: int) -> None:
    session = await slept(api, "one", "two", "three", "four")
    links, objects = (await saved_of(api, session)).links, api.archive.objects
    await evict(api, session)
    objects[links[one]], objects[links[other]] = objects[links[other]], objects[links[one]]
    answer = await api.call("GET", f"/files/read?sessionId={session}&path=file")
    if one:
        assert answer.json["content"] == ("", "one", "two")[one]
    else:
        assert answer.error["details"]["reason"] == "snapshot_damaged"


async def test_a_link_of_another_session_does_not_open(api: Api) -> None:
    mine, other = await slept(api, "one", "two"), await slept(api, "eins", "zwei")
    links, others = (await saved_of(api, mine)).links, (await saved_of(api, other)).links
    await evict(api, mine)
    api.archive.objects[links[1]] = api.archive.objects[others[1]]
    assert await content_of(api, mine) == "one"


async def test_a_link_opens_only_above_the_links_that_it_was_made_for(api: Api) -> None:
    session = await slept(api, "one", "two", "three")
    stored, saved = await stored_of(api, session), await saved_of(api, session)
    await evict(api, session)
    without = replace(saved, below=saved.below[:1], sizes=saved.sizes[:1])
    api.store.sessions[session] = replace(stored, saved=without)
    assert await content_of(api, session) == "one"


@pytest.mark.parametrize("damage", [_flip, _remove])
async def test_a_damaged_increment_is_found_before_anything_is_unpacked(
    api: Api, damage: Callable[[Api, str], None]
) -> None:
    session = await slept(api, "one", "two", "three")
    links = (await saved_of(api, session)).links
    await evict(api, session)
    damage(api, links[2])
    read = list[str]()
    get = api.archive.get

    def noted(name: str) -> Iterator[bytes]:
        read.append(name)
        return get(name)

    api.archive.get = noted  # type: ignore[method-assign]
    assert await content_of(api, session) == "two"
    assert read.count(links[0]) == 1


async def test_where_the_full_object_is_damaged_after_a_fold_the_chain_before_is_used(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    session = await slept(api, "one", "two", "three")
    saved = await folded(api, session)
    await evict(api, session)
    _flip(api, saved.name)
    with capture_logs() as logs:
        assert await content_of(api, session) == "three"
    assert "previous_snapshot_used" in [entry["event"] for entry in logs]


# --- folding ---


async def test_a_long_chain_is_folded_once_it_is_archived_and_kept_until_the_next_save(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    session = await slept(api, "one", "two", "three")
    full = await folded(api, session)
    stored = await stored_of(api, session)
    assert stored.previous
    assert len(stored.previous.links) == 3
    assert set(api.archive.objects) == {*stored.previous.links, full.name}
    assert set(api.sandboxes.volumes.parents(stored.volume)) == {full.mark}
    await sleep_with(api, session, "four")
    newest = await saved_of(api, session)
    assert newest.below == (full.name,)
    assert set(api.archive.objects) == {full.name, newest.name}
    await evict(api, session)
    assert await content_of(api, session) == "four"
    assert await big_of(api, session) == BIG


def _slow_where_full(api: Api, begun: asyncio.Event) -> Callable[..., Iterator[bytes]]:
    """From now on, volumes are sent whole without an end. Returns how they were sent before."""
    send = api.sandboxes.volumes.send
    loop = asyncio.get_running_loop()

    def sent(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        yield from send(volume_id, keep, since)
        if not since:
            loop.call_soon_threadsafe(begun.set)
            while True:
                yield b""

    api.sandboxes.volumes.send = sent  # type: ignore[method-assign]
    return send


async def test_a_sleep_does_not_wait_for_a_fold_and_a_wake_comes_before_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    session = await slept(api, "one", "two")
    begun = asyncio.Event()
    send = _slow_where_full(api, begun)
    await sleep_with(api, session, "three")
    await begun.wait()
    chain = await saved_of(api, session)
    assert len(chain.links) == 3
    await api.lifecycle.archiving.evict(session)
    assert api.sandboxes.volumes.exists((await stored_of(api, session)).volume), "the fold reads it"
    assert await content_of(api, session) == "three"
    assert set(api.archive.objects) == {*chain.links}
    assert set(api.sandboxes.volumes.parents((await stored_of(api, session)).volume)) == {chain.mark}
    api.sandboxes.volumes.send = send  # type: ignore[method-assign]
    await sleep_with(api, session, "four")
    assert len((await chain_before_fold(api, session)).links) == 4, "the chain went on meanwhile"
    await evict(api, session)
    assert await content_of(api, session) == "four"


async def test_a_chain_that_is_never_folded_ends_in_a_save(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    monkeypatch.setattr(chains, "is_long", lambda _saved: False)
    session = await slept(api, *"12345")
    assert len((await saved_of(api, session)).links) == 5
    await sleep_with(api, session, "6")
    assert (await saved_of(api, session)).below == ()
    await evict(api, session)
    assert await content_of(api, session) == "6"


async def test_increments_that_are_large_together_are_folded(api: Api) -> None:
    session, lengths = await slept(api, "one"), []
    for number in range(6):
        await write_to(api, session, f"more{number}", BIG[: len(BIG) // 5] + str(number))
        await deep_sleep(api, session)
        await eventually(lambda: not api.lifecycle.archiving._saving.under_way)
        saved = await saved_of(api, session)
        lengths.append(len(saved.links))
        assert sum(saved.sizes[1:]) <= chains.LARGEST_PART * (saved.sizes or (saved.size,))[0]
    assert 1 in lengths
    assert max(lengths) > 2


async def test_a_fold_that_fails_leaves_the_chain_and_is_logged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_LINKS", 3)
    session = await slept(api, "one", "two")
    send = api.sandboxes.volumes.send

    def only_increments(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        if not since:
            raise VolumeUnsendable("it has paths of more than 4,000 bytes")
        yield from send(volume_id, keep, since)

    api.sandboxes.volumes.send = only_increments  # type: ignore[method-assign]
    with capture_logs() as logs:
        await sleep_with(api, session, "three")
        await eventually(lambda: "chain_not_folded" in [entry["event"] for entry in logs])
    assert len((await saved_of(api, session)).links) == 3
    await evict(api, session)
    assert await content_of(api, session) == "three"


# --- without a parent, or without what is below ---


async def test_without_its_parent_a_volume_is_archived_whole(api: Api) -> None:
    session = await slept(api, "one", "two")
    api.sandboxes.volumes.drop_parents((await stored_of(api, session)).volume)
    await sleep_with(api, session, "three")
    assert (await saved_of(api, session)).below == ()
    await sleep_with(api, session, "four")
    assert len((await saved_of(api, session)).below) == 1


async def test_an_archive_that_lost_a_link_gets_the_whole_volume(api: Api) -> None:
    session = await slept(api, "one", "two")
    del api.archive.objects[(await saved_of(api, session)).links[0]]
    await sleep_with(api, session, "three")
    assert (await saved_of(api, session)).below == ()
    await evict(api, session)
    assert await content_of(api, session) == "three"
    assert await big_of(api, session) == BIG


async def test_where_an_increment_cannot_be_sent_the_whole_volume_is(api: Api) -> None:
    session = await slept(api, "one")
    send = api.sandboxes.volumes.send

    def only_whole(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        if since:
            raise VolumeUnsendable("its directories were renamed in circles")
        yield from send(volume_id, keep, since)

    api.sandboxes.volumes.send = only_whole  # type: ignore[method-assign]
    await sleep_with(api, session, "two")
    saved = await saved_of(api, session)
    assert saved.below == ()
    assert set(api.sandboxes.volumes.parents((await stored_of(api, session)).volume)) == {saved.mark}
    await evict(api, session)
    assert await content_of(api, session) == "two"


async def test_a_save_that_fails_or_gives_way_leaves_the_parent_of_the_save_before(api: Api) -> None:
    session = await slept(api, "one")
    volumes, volume = api.sandboxes.volumes, (await stored_of(api, session)).volume
    first = (await saved_of(api, session)).mark
    assert set(volumes.parents(volume)) == {first}
    api.archive.capacity = 0
    await sleep_with(api, session, "two")
    assert set(volumes.parents(volume)) == {first}
    api.archive.capacity = None
    send, sending = volumes.send, asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        yield from send(volume_id, keep, since)
        loop.call_soon_threadsafe(sending.set)
        while True:
            yield b""

    volumes.send = endless  # type: ignore[method-assign]
    sleeping = asyncio.create_task(api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"}))
    await sending.wait()
    assert await content_of(api, session) == "two"
    await sleeping
    assert set(volumes.parents(volume)) == {first}
    volumes.send = send  # type: ignore[method-assign]
    await sleep_with(api, session, "three")
    saved = await saved_of(api, session)
    assert len(saved.below) == 1
    assert set(volumes.parents(volume)) == {saved.mark}


async def test_short_disk_drops_parents_before_it_evicts_volumes(api: Api) -> None:
    session, other = await slept(api, "one"), await slept(api, "uno")
    await write_to(api, session, "big", BIG[::-1])  # its parent keeps the big file from before
    api.sandboxes.short = Strain(memory=0, disk=1000)
    await api.keep(api.keeper())
    volumes = api.sandboxes.volumes
    assert not volumes.parents((await stored_of(api, session)).volume)
    assert volumes.exists((await stored_of(api, other)).volume)
    assert volumes.parents((await stored_of(api, other)).volume), "it has nothing that the volume has not"
    api.sandboxes.short = Strain(memory=0, disk=0)
    await deep_sleep(api, session)
    assert (await saved_of(api, session)).below == ()


async def test_restores_read_increments_that_are_too_large_to_hold_one_by_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buntime.lifecycle.saving.HELD", 0)
    session = await slept(api, "one", "two", "three", "four")
    links = (await saved_of(api, session)).links
    await evict(api, session)
    _flip(api, links[3])
    assert await content_of(api, session) == "three"
