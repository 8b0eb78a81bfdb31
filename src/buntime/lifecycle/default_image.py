"""Finds the image on which new sessions of a host stand: one for all hosts of a fleet that serve by one recipe.

Each image is named by its content. So two hosts that cannot agree, for example because the archive is away, serve by
two images, and still give each other all sessions. What is lost then is room on disks and in memory.
"""

import asyncio
import time
from collections.abc import Iterator
from enum import Enum, auto
from threading import Event
from typing import Protocol

import structlog

from buntime.errors import Unavailable
from buntime.lifecycle.saved_images import DefaultImages, SavedImages
from buntime.lifecycle.sealing import Damaged
from buntime.ports import ArchiveUnavailable, ObjectMissing, Roots

log = structlog.get_logger()

FETCH_SECONDS = 300.0  # a start waits this long for the image of the fleet: the host that made it may still save it
LOOK_SECONDS = 2.0
TRIES = 3  # to fetch an image that is damaged, or from an archive that is away


class HostImage(Protocol):
    """The image that this host makes itself, of Debian's packages of the day."""

    @property
    def recipe(self) -> str:
        """Names the sources of the image."""
        ...

    @property
    def roots(self) -> Roots: ...

    def is_made(self) -> bool: ...

    async def prepare(self) -> None:
        """Makes the image, if it is not made. Takes a minute. Raises ImageFailed."""
        ...

    def name(self) -> str:
        """The image is among `roots` from now on, by its content, and noted. Returns the id. Blocking: seconds."""
        ...

    def note(self, image: str) -> None:
        """The image stays on this host, also if it comes only later. The one that was noted before may go. Blocking."""
        ...


async def find_default_image(
    host: HostImage,
    fleet: DefaultImages,
    saved: SavedImages,
    seconds: float = FETCH_SECONDS,
    pause: float = LOOK_SECONDS,
) -> str:
    """The id of an image that is on this host when this returns. `seconds`: to wait for the archive, at most. `pause`:
    between attempts.

    Raises ImageFailed, and MayNotAct and Unavailable of the store.
    """
    chosen = await fleet.default_image(host.recipe)
    if chosen is None:
        mine = await _own(host)
        chosen = await fleet.choose_default_image(host.recipe, mine)
        log.info("default_image_chosen", image=chosen, made=mine)
    elif not host.roots.has(chosen) and host.is_made():
        await _own(host)  # it may be the same
    await asyncio.to_thread(host.note, chosen)
    outcome = await _fetched(host.roots, saved, chosen, time.monotonic() + seconds, pause)
    if outcome is _Outcome.HERE:
        return chosen
    mine = await _own(host)
    if outcome is _Outcome.LOST:
        await fleet.choose_default_image(host.recipe, mine, instead_of=chosen)
    log.error("default_image_of_this_host", image=mine, instead_of=chosen)
    return mine


async def _own(host: HostImage) -> str:
    await host.prepare()
    return await asyncio.to_thread(host.name)


class _Outcome(Enum):
    HERE = auto()
    AWAY = auto()  # another host may be able to fetch it
    LOST = auto()  # the archive does not have it, or not whole


async def _fetched(roots: Roots, saved: SavedImages, image: str, deadline: float, pause: float) -> _Outcome:
    """Brings the image here, unless it is here. Waits for it while the archive lacks it: its host may be saving it."""
    tries = 0
    while not roots.has(image):
        try:
            await _receive(roots, saved, image, deadline)
            log.info("default_image_fetched", image=image)
        except ObjectMissing:
            if time.monotonic() > deadline:
                log.error("default_image_missing", image=image)
                return _Outcome.LOST
            await asyncio.sleep(pause)
        except (Damaged, ValueError, ArchiveUnavailable, Unavailable) as failed:
            is_away = isinstance(failed, (ArchiveUnavailable, Unavailable))
            event = "default_image_not_fetched" if is_away else "default_image_damaged"
            tries += 1
            log.error(event, image=image, reason=str(failed), tries=tries)
            if tries == TRIES or time.monotonic() > deadline:
                return _Outcome.AWAY if is_away else _Outcome.LOST
            await asyncio.sleep(pause)
    return _Outcome.HERE


async def _receive(roots: Roots, saved: SavedImages, image: str, deadline: float) -> None:
    ended = Event()

    def pieces() -> Iterator[bytes]:
        for piece in saved.get(image):
            if ended.is_set() or time.monotonic() > deadline:
                raise ArchiveUnavailable("it takes too long")
            yield piece

    try:
        await asyncio.to_thread(roots.receive, image, pieces())
    finally:
        ended.set()  # a start that was cancelled waits for the thread
