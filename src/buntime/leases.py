"""Who uses a session's sandbox now, and that it is awake for them.

A request takes a lease before it looks at the session; suspending holds the session's lock and gives
way to any lease. So a request in flight is never frozen, and one that comes during a transition
waits for its end, then works. Transitions are work of `tasks`: a client that hangs up cannot stop one midway.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.ports import Observed, Run, Sandbox, Sandboxes, SandboxGone, Store, VolumeLost
from buntime.session import Event, Session, State
from buntime.steps import reached
from buntime.tasks import Tasks

log = structlog.get_logger()

OBSERVE_SECONDS = 2.0  # a session that keeps its guest from answering does not hold up a GET


class Leases:
    def __init__(self, store: Store, sandboxes: Sandboxes, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._tasks = tasks
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()
        self._seen: dict[str, Observed] = {}

    @asynccontextmanager
    async def use(self, session: Session) -> AsyncIterator[Sandbox]:
        """The session's sandbox, awake; started on its volume where it does not run. Counts as activity.

        Raises SessionNotFound, Unavailable, and InvalidState when the sandbox ends while it is in use.
        """
        self._held[session.id] += 1
        try:
            await self._touch(session.id)
            yield await self._awake(session.id)
        except SandboxGone:
            await self._tasks.finish(self._wake(session.id, suspect=True), f"restart {session.id}")
            raise errors.InvalidState(
                "The session's runtime ended while it worked, for example because the program killed every "
                "process. It was started again: files are kept, background processes are not."
            ) from None
        finally:
            self._held[session.id] -= 1
            if not self._held[session.id]:
                del self._held[session.id]
            await self._touch(session.id)

    async def wake(self, session_id: str) -> Session:
        """The session, awake. Raises SessionNotFound and Unavailable."""
        await self._tasks.finish(self._wake(session_id), f"wake {session_id}")
        return await self._present(session_id)

    async def suspend(self, session_id: str, quiet_since: float | None = None) -> bool:
        """Freezes the sandbox and stores that; False, and nothing done, where somebody uses the session.

        `quiet_since`: only if there was no activity since (Unix seconds).
        """
        return await self._tasks.finish(self._suspend(session_id, quiet_since), f"suspend {session_id}")

    async def deep_sleep(self, session_id: str, quiet_since: float | None = None) -> bool:
        """Ends its processes, gently at first, and gives the sandbox back; its files stay. Else as `suspend`."""
        return await self._tasks.finish(self._deep_sleep(session_id, quiet_since), f"deep sleep of {session_id}")

    async def end(self, session: Session, work: Callable[[str], Awaitable[None]]) -> None:
        """`work` on the sandbox of a session that is marked as deleted, when no transition is under way."""
        async with self._lock(session.id):
            await work(session.sandbox)

    async def observe(self, session: Session) -> Observed:
        """What is inside: now for an active session, as last seen for one that sleeps. Not activity."""
        sandbox = await self._sandboxes.get(session.sandbox) if session.state is State.ACTIVE else None
        if sandbox is not None:
            try:
                async with asyncio.timeout(OBSERVE_SECONDS):
                    self._seen[session.id] = await sandbox.observe()
            except (TimeoutError, SandboxGone):
                log.info("observe_failed", session=session.id)
        return self.last_seen(session)

    def last_seen(self, session: Session) -> Observed:
        return self._seen.get(session.id) or Observed(session.files, session.processes)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._seen.pop(session_id, None)

    # --- inside ---

    async def _awake(self, session_id: str) -> Sandbox:
        lock = self._lock(session_id)
        session = await self._store.get_session(session_id)
        if session is not None and session.state is State.ACTIVE:
            sandbox = await self._sandboxes.get(session.sandbox)
            # the lease is taken already: a suspension that has not begun now will find it
            if sandbox is not None and not lock.locked():
                return sandbox
        return await self._tasks.finish(self._wake(session_id), f"wake {session_id}")

    async def _wake(self, session_id: str, *, suspect: bool = False) -> Sandbox:
        """`suspect`: a sandbox that runs is asked whether it still answers, and replaced if it does not."""
        async with self._lock(session_id):
            session = await self._present(session_id)
            try:
                sandbox = await self._sandboxes.get(session.sandbox)
                if sandbox is not None and session.state is State.IDLE:
                    await sandbox.thaw()
                if sandbox is None or suspect:
                    sandbox = await self._sandboxes.start(session)
            except VolumeLost:
                log.error("volume_lost", session=session.id, sandbox=session.sandbox)
                raise errors.Unavailable("The session's volume is not on this host.", 60) from None
            if session.state is not State.ACTIVE:
                slept_deep = session.state is State.DEEP_SLEEP
                await self._change(session, (Event.RESTORE if slept_deep else Event.RESUME,))
                log.info("session_woken", session=session.id, wake_from=session.state.value)
                if slept_deep and session.on_wake is not None:
                    self._tasks.start(_run_on_wake(sandbox, session), f"onWake of {session.id}")
            return sandbox

    async def _suspend(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._lock(session_id):
            session = await self._present(session_id)
            sandbox = await self._sandboxes.get(session.sandbox)
            if session.state is not State.ACTIVE or sandbox is None or _recent(session, quiet_since):
                return session.state is State.IDLE
            seen = await self.observe(session)
            # from here on whoever comes finds the lock taken, and waits
            if self._held[session_id] or not await sandbox.freeze():
                return False
            try:
                await self._change(replace(session, files=seen.files, processes=seen.processes), (Event.SUSPEND,))
            except BaseException:
                await sandbox.thaw()
                raise
            return True

    async def _deep_sleep(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._lock(session_id):
            session = await self._present(session_id)
            if session.state is State.DEEP_SLEEP or _recent(session, quiet_since):
                return session.state is State.DEEP_SLEEP
            seen = await self.observe(session)
            if self._held[session_id]:
                return False
            sandbox = await self._sandboxes.get(session.sandbox)
            if sandbox is not None and not await sandbox.quiesce():
                return False
            reached("sleep: quiet")
            session = replace(session, files=seen.files, processes=seen.processes)
            steps = (Event.SUSPEND, Event.ARCHIVE) if session.state is State.ACTIVE else (Event.ARCHIVE,)
            try:
                await self._change(session, steps)
            except BaseException:
                if sandbox is not None:
                    await sandbox.thaw()
                raise
            reached("sleep: stored")
            await self._sandboxes.stop(session.sandbox)
            reached("sleep: stopped")
            return True

    async def _change(self, session: Session, events: Sequence[Event]) -> None:
        """Stores the session after the events, with what else changed meanwhile kept. Raises SessionNotFound."""
        while True:
            after = session
            for event in events:
                after = after.after(event)
            try:
                await self._store.change_session(session, after)
                return
            except errors.StaleSession:
                stored = await self._present(session.id)
                session = replace(stored, files=session.files, processes=session.processes)

    async def _present(self, session_id: str) -> Session:
        session = await self._store.get_session(session_id)
        if session is None or session.state is State.DELETING:
            raise errors.SessionNotFound(session_id)
        return session

    async def _touch(self, session_id: str) -> None:
        await self._store.touch_session(session_id, int(self._clock()))

    def _lock(self, session_id: str) -> asyncio.Lock:
        return self._locks.setdefault(session_id, asyncio.Lock())


ON_WAKE_LOG = "/var/log/on-wake.log"  # in the session
ON_WAKE_SECONDS = 60.0  # for the shell that starts it; what it leaves running goes on


def _recent(session: Session, quiet_since: float | None) -> bool:
    return quiet_since is not None and session.last_active > quiet_since


async def _run_on_wake(sandbox: Sandbox, session: Session) -> None:
    """The session's own command, as a process in its background; its output is in ON_WAKE_LOG."""
    command = f"exec >>{ON_WAKE_LOG} 2>&1; (\n{session.on_wake}\n) &"
    try:
        await sandbox.run(Run(timeout=ON_WAKE_SECONDS, command=command, env=session.env))
    except (SandboxGone, errors.BuntimeError) as failed:
        log.warning("on_wake_failed", session=session.id, reason=str(failed))
