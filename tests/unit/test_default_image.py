"""Which image a host of a fleet serves by, and what it asks the archive for."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from buntime.errors import Unavailable
from buntime.lifecycle.default_image import TRIES, find_default_image
from buntime.lifecycle.saved_images import SavedImages, SharedImages
from buntime.lifecycle.sealing import Vault
from buntime.testing.archive import FakeArchive
from buntime.testing.default_images import FakeDefaultImages
from buntime.testing.owners import FakeOwners
from buntime.testing.roots import FakeRoots
from buntime.testing.store import FakeStore

RECIPE = "img-1"


class Host:
    """`lifecycle.default_image.HostImage`. Each makes another image, as hosts whose packages are of different days."""

    def __init__(self, number: int, fleet: FakeDefaultImages, archive: FakeArchive, recipe: str = RECIPE) -> None:
        self.own = f"root-{number:032}"
        self.recipe = recipe
        self.roots = Roots()
        self.made = 0
        self.noted = ""
        self.fleet = FakeDefaultImages(f"hst_{number}", fleet)
        self.saved = SavedImages(archive, Vault(b"k" * 32))

    def is_made(self) -> bool:
        return self.made > 0

    async def prepare(self) -> None:
        self.made += 1

    def name(self) -> str:
        self.roots.here.add(self.own)
        self.noted = self.own
        return self.own

    def note(self, image: str) -> None:
        self.noted = image

    async def start(self, seconds: float = 10) -> str:
        image = await find_default_image(self, self.fleet, self.saved, seconds, pause=0.001)
        assert self.roots.has(image)
        assert self.noted == image
        return image

    def save(self) -> None:
        self.saved.put(self.own, self.roots.send(self.own))


class Roots(FakeRoots):
    """Has only what is here, and may be full."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0
        self.full = False

    def has(self, image_id: str) -> bool:
        return image_id in self.here

    def receive(self, image_id: str, content: Iterator[bytes]) -> None:
        self.tries += 1
        if self.full:
            raise Unavailable("full")
        super().receive(image_id, content)


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive()


@pytest.fixture
async def hosts(archive: FakeArchive) -> tuple[Host, Host]:
    """The first has chosen its own image, and saved it."""
    fleet = FakeDefaultImages()
    a, b = Host(1, fleet, archive), Host(2, fleet, archive)
    assert await a.start() == a.own
    a.save()
    return a, b


async def test_a_second_host_makes_no_image_and_has_that_of_the_first(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    assert await b.start() == a.own
    assert (a.made, b.made) == (1, 0)


async def test_hosts_that_start_at_once_have_one_image(archive: FakeArchive) -> None:
    fleet = FakeDefaultImages()
    starting = [Host(number, fleet, archive) for number in range(3)]
    for host in starting:
        await host.prepare()
        host.name()
        host.save()  # each is sooner than the choice
    images = await asyncio.gather(*(host.start() for host in starting))
    assert len(set(images)) == 1


async def test_a_start_asks_no_archive_where_the_image_is_here(hosts: tuple[Host, Host], archive: FakeArchive) -> None:
    a, b = hosts
    await b.start()
    archive.unreachable = True
    assert [await host.start() for host in hosts] == [a.own, a.own]
    assert b.roots.tries == 1


async def test_a_host_waits_for_an_image_that_is_being_saved(hosts: tuple[Host, Host], archive: FakeArchive) -> None:
    a, b = hosts
    await asyncio.to_thread(archive.delete, f"images/{a.own}")
    start = asyncio.create_task(b.start())
    await asyncio.sleep(0.02)
    assert not start.done()
    a.save()
    assert await start == a.own


async def test_an_image_that_nobody_saved_is_replaced_by_that_of_the_next_host(
    hosts: tuple[Host, Host], archive: FakeArchive
) -> None:
    a, b = hosts
    archive.delete(f"images/{a.own}")
    assert await b.start(seconds=0.01) == b.own
    b.save()
    assert await a.start() == b.own, "all follow"


@pytest.mark.parametrize("cut", [0, 20, -1])
async def test_a_damaged_image_is_fetched_again_and_then_replaced(
    hosts: tuple[Host, Host], archive: FakeArchive, cut: int
) -> None:
    a, b = hosts
    name = f"images/{a.own}"
    archive.objects[name] = archive.objects[name][:cut]
    assert await b.start() == b.own
    assert b.roots.tries == TRIES
    assert not b.roots.has(a.own)
    assert await b.fleet.default_images() == {b.own}


async def test_an_image_that_was_damaged_on_its_way_is_used_when_it_is_whole(
    hosts: tuple[Host, Host], archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    get, tries = archive.get, count()

    def once_wrong(name: str) -> Iterator[bytes]:
        return iter([b"x" * 100]) if next(tries) == 0 else get(name)

    monkeypatch.setattr(archive, "get", once_wrong)
    assert await b.start() == a.own
    assert b.made == 0


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_host_that_cannot_fetch_serves_by_its_own_image_and_replaces_nothing(
    hosts: tuple[Host, Host], archive: FakeArchive, is_full: bool
) -> None:
    a, b = hosts
    b.roots.full, archive.unreachable = is_full, not is_full
    assert await b.start() == b.own
    assert await b.fleet.default_images() == {a.own}
    b.roots.full = archive.unreachable = False
    assert await b.start() == a.own, "the next start does"


async def test_a_start_waits_no_longer_than_it_may(hosts: tuple[Host, Host], archive: FakeArchive) -> None:
    _, b = hosts
    archive.seconds_per_piece = 0.02
    assert await b.start(seconds=0.01) == b.own


async def test_a_host_whose_own_image_is_the_same_fetches_nothing(
    hosts: tuple[Host, Host], archive: FakeArchive
) -> None:
    a, b = hosts
    b.own = a.own
    await b.prepare()
    archive.unreachable = True
    assert await b.start() == a.own
    assert b.roots.tries == 0


async def test_a_new_recipe_makes_one_new_image(hosts: tuple[Host, Host], archive: FakeArchive) -> None:
    """As in a rolling upgrade."""
    a, b = hosts
    await b.start()
    a.recipe = b.recipe = "img-2"
    old, a.own = a.own, f"root-{3:032}"
    assert await a.start() == a.own
    assert await a.fleet.default_images() == {old, a.own}, "the other host has not been upgraded"
    a.save()
    assert await b.start() == a.own
    assert b.made == 0
    assert await a.fleet.default_images() == {a.own}


async def test_a_default_image_is_in_the_archive_for_as_long_as_a_host_has_its_recipe(archive: FakeArchive) -> None:
    a = Host(1, FakeDefaultImages(), archive)
    await a.start()
    shared = SharedImages(FakeStore(), a.roots, a.saved, FakeOwners(), a.fleet)
    await shared.look(is_first=True)
    assert not archive.objects, "a start has more urgent work"
    for _ in range(2):
        await shared.look()
        assert list(archive.objects) == [f"images/{a.own}"]
    await a.fleet.default_image("img-2")
    await shared.look()
    assert not archive.objects
