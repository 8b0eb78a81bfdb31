"""Removes images that nothing on this host uses, and what a killed process has left of some."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Set

import structlog

from buntime.config import Config
from buntime.errors import BuntimeError
from buntime.sandboxes.images.noted import needed
from buntime.sandboxes.images.shelf import Shelf

log = structlog.get_logger()

EVERY_SECONDS = 600.0

type Used = Callable[[], Awaitable[Set[str]]]  # ids, as the store says


async def prune(config: Config, used: Used) -> Collection[str]:
    """Returns the ids of the removed images: none while another process is at work on images, which would wait."""
    shelf = Shelf(config.images, config.instance)
    with shelf.locked() as have:
        if not have:
            return ()
        # asked for with the lock: nobody adds an image meanwhile, and names it only then
        return await asyncio.to_thread(shelf.prune, await used() | needed(config.data_dir))


async def keep_pruned(config: Config, used: Used) -> None:
    """For ever, on a host of a fleet: images come there by themselves, and a start may be long ago."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            if gone := await prune(config, used):
                log.info("images_removed", images=sorted(gone))
        except (BuntimeError, OSError) as failed:
            log.warning("images_not_removed", reason=str(failed))
