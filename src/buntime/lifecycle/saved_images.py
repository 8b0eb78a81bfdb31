"""Images that operators have added, and default images, in the archive of a fleet: any host has them from there.

    images/<image id>    a tarball, packed, and sealed with a key of the master key's

An image is put there by a host that has it, once anything refers to it, and fetched by one that lacks it. The id names
the content, so the host that fetches it finds out whether that is right.
"""

import asyncio
from collections.abc import Iterator, Set
from contextlib import suppress
from typing import Protocol

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.image import ADDED_PREFIX
from buntime.lifecycle.packing import compress, decompress
from buntime.lifecycle.sealing import Damaged, Vault, seal, unseal
from buntime.ports import Archive, ArchiveUnavailable, ObjectExists, ObjectMissing, Owners, Roots, Store

log = structlog.get_logger()

FOLDER = "images/"
LARGEST = 1 << 40  # bytes of an image
TICK_SECONDS, FIRST_SECONDS = 60.0, 20.0  # between looks; after the first one: a start has more urgent work


class SavedImages:
    """Methods block. They raise ArchiveUnavailable."""

    def __init__(self, archive: Archive, vault: Vault) -> None:
        self._archive = archive
        self._key = vault.images_key

    def all(self) -> set[str]:
        return {name.removeprefix(FOLDER) for name in self._archive.names(FOLDER)}

    def put(self, image_id: str, content: Iterator[bytes]) -> None:
        with suppress(ObjectExists):  # another host was faster: the same image, sealed with another nonce
            self._archive.put(FOLDER + image_id, seal(self._key, image_id.encode(), compress(content)))

    def get(self, image_id: str) -> Iterator[bytes]:
        """Raises ObjectMissing and Damaged."""
        return decompress(unseal(self._key, image_id.encode(), self._archive.get(FOLDER + image_id)), LARGEST)

    def delete(self, image_id: str) -> None:
        self._archive.delete(FOLDER + image_id)


class DefaultImages(Protocol):
    """The default images of a fleet, one for each recipe: the sources of which hosts make it."""

    async def default_image(self, recipe: str) -> str | None:
        """The id, if hosts have chosen one. This host uses the recipe from now on. What is of recipes that no host uses
        any more is forgotten. Raises MayNotAct and Unavailable."""
        ...

    async def choose_default_image(self, recipe: str, image: str, instead_of: str = "") -> str:
        """Returns what all hosts choose: the first image, or this one in place of `instead_of`. Raises the same."""
        ...

    async def default_images(self) -> Set[str]:
        """Ids of those of all recipes. Raises Unavailable."""
        ...


class SharedImages:
    def __init__(
        self, store: Store, roots: Roots, saved: SavedImages, owners: Owners, defaults: DefaultImages | None
    ) -> None:
        """`defaults`: None where there is no other host."""
        self._store = store
        self._roots = roots
        self._saved = saved
        self._owners = owners
        self._defaults = defaults

    def is_here(self, image_id: str) -> bool:
        return self._owners.is_alone or self._roots.has(image_id)

    async def fetch(self, image_id: str) -> None:
        """Brings the image to this host. Raises OnAnotherHost and Unavailable."""
        try:
            await asyncio.to_thread(self._receive, image_id)
        except ObjectMissing:
            raise errors.OnAnotherHost from None
        except ArchiveUnavailable as away:
            raise errors.Unavailable(f"The archive that holds the image {image_id} cannot be reached.", 5) from away
        except (Damaged, ValueError) as wrong:
            log.error("image_damaged", image=image_id, reason=str(wrong))
            raise errors.Unavailable(f"The archive does not have the image {image_id} whole.", 60) from wrong
        log.info("image_fetched", image=image_id)

    def _receive(self, image_id: str) -> None:
        """Blocking."""
        self._roots.receive(image_id, self._saved.get(image_id))

    async def keep(self) -> None:
        """For ever, on a host that is not alone: puts images of this host into the archive."""
        is_first = True
        while not self._owners.is_alone:
            try:
                await self.look(is_first=is_first)
            except (errors.BuntimeError, ArchiveUnavailable, OSError) as failed:
                log.warning("images_not_saved", reason=str(failed))
            await asyncio.sleep(FIRST_SECONDS if is_first else TICK_SECONDS)
            is_first = False

    async def look(self, *, is_first: bool = False) -> None:
        """Once: saves what the archive lacks. One host removes for all what nothing refers to. The first look leaves a
        default image to the next one, unless a session may need it on another host."""
        if not self._owners.may_act():
            return
        there = await asyncio.to_thread(self._saved.all)
        defaults = await self._defaults.default_images() if self._defaults else frozenset[str]()
        referred = await self._store.used_images()
        used = {image for image in defaults | referred if image.startswith(ADDED_PREFIX)}
        due = used & referred if is_first else used
        for image_id in due & set(await asyncio.to_thread(self._roots.all)) - there:
            await asyncio.to_thread(lambda image: self._saved.put(image, self._roots.send(image)), image_id)
            reached("image: saved")
            log.info("image_saved", image=image_id)
        for image_id in there - used if self._owners.has_duty() else ():
            await asyncio.to_thread(self._saved.delete, image_id)
