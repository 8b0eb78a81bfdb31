"""Keeps aside what this host has of sessions that moved to another one while it was lost.

The other host went on from what the archive had. What is newer is here alone: it becomes a snapshot for the account. It
is never merged into the session, and never deleted at once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from buntime.daemon.boundary import failing_alone
from buntime.daemon.steps import reached
from buntime.fleet.ownership import Left
from buntime.fleet.rows import Rows
from buntime.ids import new_snapshot_id
from buntime.lifecycle.assembly import Lifecycle
from buntime.lifecycle.records import no_sandbox
from buntime.plan import Limits
from buntime.ports import Sandboxes, VolumeLost
from buntime.session import Session, State
from buntime.snapshot import KEPT_ASIDE, Layer, Snapshot

log = structlog.get_logger()

TICK_SECONDS = 60.0
SOON_SECONDS = 0.5  # before a host that may not act yet looks again: it hears of moves just before it may


class Aside:
    """`moved`: set when a session has moved."""

    def __init__(
        self,
        rows: Rows,
        sandboxes: Sandboxes,
        lifecycle: Lifecycle,
        may_act: Callable[[], bool],
        moved: asyncio.Event,
    ) -> None:
        self._rows = rows
        self._sandboxes = sandboxes
        self._layers = lifecycle.layers
        self._holds = lifecycle.holds
        self._endings = lifecycle.endings
        self._may_act = may_act
        self._moved = moved

    async def keep(self) -> None:
        """For ever."""
        while True:
            self._moved.clear()
            with failing_alone("not_kept_aside"):
                if self._may_act():
                    await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS if self._may_act() else SOON_SECONDS):
                    await self._moved.wait()

    async def look(self) -> None:
        """Once. What cannot be given up now waits for the next look. Raises Unavailable."""
        for left in await self._rows.left_behind():
            with failing_alone("not_kept_aside", session=left.session):
                async with self._holds.lock(left.session):
                    await self._give_up(left)

    async def _give_up(self, left: Left) -> None:
        session = await self._rows.get_session(left.session)
        held = _as_it_was(left)
        await self._sandboxes.stop(held)
        if session is None or session.host != self._rows.host:
            self._endings.forget(left.session)
        is_wanted = session is not None and session.state is not State.DELETING
        if left.changed and is_wanted and self._sandboxes.volumes.exists(left.volume):
            await self._keep(left, held)
        await self._sandboxes.destroy(held)
        await self._rows.forget_left(left)
        reached("aside: forgotten")

    async def _keep(self, left: Left, held: Session) -> None:
        try:
            layer = await self._layers.capture_volume(held)
        except VolumeLost:
            return
        kept = _snapshot(left, layer)
        if not await self._rows.keep_aside(left, kept, layer):
            await self._layers.discard(layer.id)
            return
        reached("aside: stored")
        log.warning("session_kept_aside", session=left.session, snapshot=kept.id)
        self._layers.start_saving(layer.id)


def _as_it_was(left: Left) -> Session:
    """As much of the session as tells the host what to stop and to copy."""
    return Session(
        id=left.session,
        account=left.account,
        created_at=0,
        expires_at=None,
        last_active=0,
        limits=Limits(memory=0, cpu=0, timeout=0, disk=left.disk),
        sandbox=no_sandbox(is_foreign=False),
        volume=left.volume,
        image=left.image,
        image_name=left.image_name,
    )


def _snapshot(left: Left, layer: Layer) -> Snapshot:
    return Snapshot(
        id=new_snapshot_id(),
        account=left.account,
        session=left.session,
        layer=layer.id,
        image=left.image,
        image_name=left.image_name,
        size=layer.size,
        created_at=layer.created_at,
        name=KEPT_ASIDE,
    )
