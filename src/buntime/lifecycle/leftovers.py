"""Finds what killed servers left of uploads in the archive, and removes it.

Such a rest has no name in any listing of objects. Only what has a name of ours is looked at: the place may be shared.
"""

import asyncio
import re
from collections.abc import Callable

import structlog

from buntime import errors
from buntime.ids import LAYER_PREFIX
from buntime.image import ADDED_PREFIX
from buntime.lifecycle.object_names import MARK
from buntime.lifecycle.saving import Saving
from buntime.ports import Archive, ArchiveUnavailable, Owners, Store, Upload

log = structlog.get_logger()

OURS = re.compile(rf"images/{ADDED_PREFIX}[0-9a-f]{{32}}|((?:ses_|{LAYER_PREFIX})[a-z0-9]+)/{MARK.pattern}")
TICK_SECONDS = 3600.0
OLD_SECONDS = 86_400  # of what another server may still send


class Leftovers:
    def __init__(
        self, store: Store, archive: Archive, saving: Saving, owners: Owners, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._archive = archive
        self._saving = saving
        self._owners = owners
        self._clock = clock

    async def keep(self) -> None:
        """For ever: looks at the start, then every hour."""
        while True:
            try:
                await self.sweep()
            except (ArchiveUnavailable, errors.BuntimeError) as failed:
                log.warning("uploads_not_swept", reason=str(failed))
            await asyncio.sleep(TICK_SECONDS)

    async def sweep(self) -> None:
        """Once. Raises ArchiveUnavailable."""
        removed = 0
        for upload in await asyncio.to_thread(self._archive.uploads, ""):
            if await self._is_left(upload):
                await asyncio.to_thread(self._archive.abort, upload)
                removed += 1
        if removed:
            log.info("uploads_removed", count=removed)

    async def _is_left(self, upload: Upload) -> bool:
        """Whether nobody sends it any more."""
        named = OURS.fullmatch(upload.name)
        if named is None or self._saving.is_making(upload.name):
            return False
        if named[1] is not None and await self._is_ours(named[1]):
            return True  # only this server saves it
        return upload.began_at <= self._clock() - OLD_SECONDS

    async def _is_ours(self, owner_id: str) -> bool:
        if owner_id.startswith(LAYER_PREFIX):
            return self._owners.is_alone and await self._store.get_layer(owner_id) is not None
        session = await self._store.get_session(owner_id)
        return session is not None and self._owners.is_mine(session)
