"""Ending visitors' connections when they lose access to a preview."""

import asyncio

from buntime.daemon.tasks import Tasks
from buntime.ports import Sandboxes
from buntime.preview import PERMISSION_SECONDS
from buntime.session import Session

SPENT_SECONDS = PERMISSION_SECONDS + 0.5  # after which the edge has asked again


class Visitors:
    def __init__(self, sandboxes: Sandboxes, tasks: Tasks) -> None:
        self._sandboxes = sandboxes
        self._tasks = tasks

    async def disconnect(self, session: Session) -> None:
        """Ends the open connections to the session now, and again when no earlier permission lets one through."""

        async def once_more() -> None:
            await asyncio.sleep(SPENT_SECONDS)
            await self._sandboxes.disconnect(session.sandbox)

        self._tasks.start(once_more(), f"disconnect {session.id}")
        await self._sandboxes.disconnect(session.sandbox)
