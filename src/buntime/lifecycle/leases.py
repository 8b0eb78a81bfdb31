"""Gives requests a session's sandbox, awake.

A request takes a lease before it looks at the session, and going to sleep gives way to any lease. So a request that
runs is never frozen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from buntime import errors
from buntime.daemon.tasks import within
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.relief import Relief
from buntime.lifecycle.services import Services
from buntime.lifecycle.transitions import Transitions
from buntime.ports import Sandbox, Sandboxes, SandboxGone, Store
from buntime.session import Session, State

WAKE_SECONDS = 8.0  # a request waits this long for a wake; the wake itself goes on


class Leases:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        changes: Changes,
        holds: Holds,
        transitions: Transitions,
        layers: Layers,
        relief: Relief,
        services: Services,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._changes = changes
        self._holds = holds
        self._transitions = transitions
        self._layers = layers
        self._relief = relief
        self._services = services
        self._clock = clock

    @asynccontextmanager
    async def use(self, session: Session) -> AsyncIterator[Sandbox]:
        """The session's sandbox, awake; started on its volume if it does not run. Counts as activity.

        Raises SessionNotFound, Unavailable, SessionDamaged, and InvalidState when the sandbox ends while it is in use.
        """
        with self._holds.held(session.id):
            try:
                await self._touch(session.id)
                yield await self._awake(session.id)
            except SandboxGone:
                raise await self._started_again(session.id) from None
            finally:
                await self._touch(session.id)

    async def _started_again(self, session_id: str) -> errors.InvalidState:
        """The failure of a request whose sandbox has ended. The request may have done something, so the failure is the
        same when the sandbox cannot start now."""
        try:
            await self._transitions.restart(session_id)
            started = "It was started again"
        except errors.Unavailable:
            started = "It starts again with the next request"
        return errors.InvalidState(
            "The session's runtime ended while it worked, for example because the program killed every process. "
            f"{started}: files are kept, background processes are not."
        )

    def lend(self, session: Session, seconds: float) -> None:
        """From within `use`: prevents suspension and deep sleep for `seconds`. What a client does under the permission
        that was granted is invisible here."""
        self._holds.lend(session.id, seconds)

    async def lend_again(self, session_id: str, seconds: float) -> Sandbox | None:
        """Lends a session for `seconds` from now that is still lent and awake, and returns its sandbox. None otherwise,
        and where it is to sleep as soon as it is not lent. Counts as activity. Raises Unavailable."""
        if self._holds.is_awaited(session_id):
            return None
        with self._holds.held(session_id):
            session = await self._store.get_session(session_id)
            if session is None or session.state is not State.ACTIVE or not self._holds.is_lent(session_id):
                return None
            sandbox = await self._sandboxes.get(session.sandbox)  # adopted already, because this server has lent it
            if sandbox is None or self._holds.lock(session_id).locked():
                return None
            self._holds.lend(session_id, seconds)
            self._services.look(session, sandbox)
            await self._touch(session_id)
            return sandbox

    def writing(self, session_id: str) -> AbstractAsyncContextManager[None]:
        """See `Holds.writing`."""
        return self._holds.writing(session_id)

    async def wake(self, session_id: str) -> Session:
        """The session, awake. Counts as activity. Raises SessionNotFound, Unavailable and SessionDamaged."""
        await self._touch(session_id)
        await self._woken(session_id, _deadline())
        return await self._changes.present(session_id)

    async def touched(self, session_id: str) -> None:
        """Clients sent something on open connections: that is activity, and wakes a suspended session."""
        await self._touch(session_id)
        session = await self._store.get_session(session_id)
        if session is not None and session.state is State.IDLE:
            await self.wake(session_id)

    async def _awake(self, session_id: str) -> Sandbox:
        lock, until = self._holds.lock(session_id), _deadline()
        session = await self._store.get_session(session_id)
        if session is not None and session.state is State.ACTIVE:
            sandbox = await self._running(session)
            # the session counts as held already: a suspension that has not begun by now will see that
            if sandbox is not None and not lock.locked():
                self._services.look(session, sandbox)
                return sandbox
        return await self._woken(session_id, until)

    async def _running(self, session: Session) -> Sandbox | None:
        """Waits while a sandbox that an earlier server left is taken over, for a limited time; that goes on. Raises
        StillWaking."""
        try:
            return await within(WAKE_SECONDS, self._sandboxes.get(session.sandbox), f"sandbox of {session.id}")
        except TimeoutError:
            raise await self._still_waking(session.id) from None

    async def _woken(self, session_id: str, until: float) -> Sandbox:
        """Waits for a wake, for a limited time; the wake goes on. Raises StillWaking and Unavailable."""
        try:
            async with asyncio.timeout_at(until):
                try:
                    return await self._transitions.wake(session_id)
                except errors.Unavailable:
                    if not await self._relief.relieve():
                        raise
                return await self._transitions.wake(session_id)
        except TimeoutError:
            raise await self._still_waking(session_id) from None

    async def _still_waking(self, session_id: str) -> errors.StillWaking:
        session = await self._store.get_session(session_id)
        if session is None:
            return errors.StillWaking()
        progress = await self._layers.progress(session)
        return errors.StillWaking(progress.retry_after(WAKE_SECONDS, 1), **progress.details())

    async def _touch(self, session_id: str) -> None:
        await self._store.touch_session(session_id, int(self._clock()))


def _deadline() -> float:
    """Of a request that waits for a session, on the loop's clock."""
    return asyncio.get_running_loop().time() + WAKE_SECONDS
