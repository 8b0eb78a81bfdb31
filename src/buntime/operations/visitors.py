"""Ending visitors' connections when they lose access to a preview."""

import asyncio

from buntime.daemon.tasks import Tasks
from buntime.ports import Sandboxes, Store
from buntime.preview import PERMISSION_SECONDS

SPENT_SECONDS = PERMISSION_SECONDS + 0.5  # after which the edge has asked again


class Visitors:
    def __init__(self, store: Store, sandboxes: Sandboxes, tasks: Tasks) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._tasks = tasks

    async def disconnect(self, session_id: str) -> None:
        """Ends the open connections to the session now, and again when no earlier permission lets one through."""

        async def once_more() -> None:
            await asyncio.sleep(SPENT_SECONDS)
            await self._cut(session_id)

        self._tasks.start(once_more(), f"disconnect {session_id}")
        await self._cut(session_id)

    async def _cut(self, session_id: str) -> None:
        session = await self._store.get_session(session_id)  # a wake may have given it another sandbox
        if session is not None:
            await self._sandboxes.disconnect(session.sandbox)
