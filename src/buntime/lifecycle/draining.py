"""Gives up the sessions of a host that drains, so that other hosts wake them.

A session goes when it is in deep sleep and the archive has all that a wake needs. Nothing is taken from a request: one
that comes while its session is archived wakes it here, and it goes later. One that comes while its session goes waits
for that, and then finds out who has it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Protocol

import structlog

from buntime.daemon.boundary import failing_alone
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.errors import SessionNotFound
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.checkpoints import Checkpoints
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.transitions import Transitions
from buntime.ports import Sandboxes, Store
from buntime.session import Session, State

log = structlog.get_logger()

AT_ONCE = 4  # sessions; each may send a volume to the archive
PAUSE_SECONDS = 1.0  # between two looks
LEAVE_SECONDS = 5.0  # for which a request waits while its session goes, of the 8 that it waits for a wake


class Drain(Protocol):
    """Whether this host drains, as the operator has marked it."""

    @property
    def host(self) -> str:
        """The id of this host."""
        ...

    def is_on(self) -> bool:
        """Reads memory only."""
        ...

    async def seconds_left(self) -> float:
        """Until sessions that are still awake go to deep sleep as soon as no request uses them. Raises Unavailable."""
        ...


class Releases(Protocol):
    async def release(self, session: Session) -> bool:
        """Makes the session nobody's: any host may claim it. Its epoch stays, since nobody claimed it yet.

        Returns False, with nothing changed, unless it is in deep sleep and archived, and the host of `session` still
        has it with that epoch. Raises Unavailable.
        """
        ...


class Remembering(Protocol):
    def forget(self, session_id: str) -> None: ...


class Draining:
    def __init__(
        self,
        store: Store,
        releases: Releases,
        sandboxes: Sandboxes,
        changes: Changes,
        holds: Holds,
        archiving: Archiving,
        checkpoints: Checkpoints,
        transitions: Transitions,
        layers: Layers,
        forgetting: tuple[Remembering, ...],
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        """`forgetting`: what remembers something of a session until the session is gone."""
        self._store = store
        self._releases = releases
        self._sandboxes = sandboxes
        self._changes = changes
        self._holds = holds
        self._archiving = archiving
        self._checkpoints = checkpoints
        self._transitions = transitions
        self._layers = layers
        self._forgetting = forgetting
        self._tasks = tasks
        self._clock = clock
        self.released = 0  # sessions, since the start

    async def keep(self, drain: Drain) -> None:
        """For ever: gives up sessions while the host drains. What a look could not do, a later one does."""
        was_empty = False
        while True:
            if not drain.is_on():
                was_empty = False
            else:
                with failing_alone("drain_waits"):
                    left = await self.step(drain)
                    if not left and not was_empty:
                        log.info("host_drained", host=drain.host)
                    was_empty = not left
            await asyncio.sleep(PAUSE_SECONDS)

    async def step(self, drain: Drain) -> int:
        """Gives up what can go now. Returns how many sessions the host still has. Stops early when the host does not
        drain any more. Raises Unavailable."""
        is_over = await drain.seconds_left() <= 0
        await self._layers.save_here()
        mine = [session for session in await self._store.all_sessions() if session.host == drain.host]
        todo = iter(mine)
        released = self.released
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._give_up_each(todo, drain, is_over=is_over), name="drain")
        return len(mine) - (self.released - released)

    async def _give_up_each(self, sessions: Iterator[Session], drain: Drain, *, is_over: bool) -> None:
        for session in sessions:
            if not drain.is_on():
                return
            with failing_alone("session_not_given_up", session=session.id), suppress(SessionNotFound):
                await self._give_up(session, is_over=is_over)

    async def _give_up(self, session: Session, *, is_over: bool) -> None:
        if session.state is State.DELETING:  # the keeper removes its remains
            return
        if session.state is not State.DEEP_SLEEP and not is_over:
            return
        # what is archived now need not be while requests wait
        if session.state is State.ACTIVE and not await self._checkpoints.archive(session.id):
            return
        with self._holds.leaving(session.id, LEAVE_SECONDS) if is_over else nullcontext():
            if await self._sleeps(session):
                await self._tasks.finish(self._release(session.id), f"release {session.id}")

    async def _sleeps(self, session: Session) -> bool:
        """Whether it is in deep sleep, and the archive has all that a wake on another host needs."""
        # what was used just now is not quiet, and what is used meanwhile stays awake
        if session.state is not State.DEEP_SLEEP and not await self._transitions.deep_sleep(session.id, self._clock()):
            return False
        return await self._archiving.archive(session.id) and await self._layers.saves_image(session.image)

    async def _release(self, session_id: str) -> None:
        """A wake that waits finds that the session is nobody's, and claims it or sends its request on."""
        async with self._archiving.one_save(session_id), self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            newest, volumes = session.saved, self._sandboxes.volumes
            if newest is not None and newest.is_checkpoint and volumes.exists(session.volume):
                return  # the volume was lost and is back: it is newer than a checkpoint
            if not await self._releases.release(session):
                return
            self.released += 1
            reached("release: stored")
            await volumes.remove(session.volume)
            reached("release: removed")
        for part in self._forgetting:
            part.forget(session_id)
        log.info("session_given_up", session=session_id)
