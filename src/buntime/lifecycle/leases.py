"""Who uses a session's sandbox now, and that it is awake for them.

A request takes a lease before it looks at the session; suspending holds the session's lock and gives
way to any lease. So a request in flight is never frozen, and one that comes during a transition
waits for its end, then works. Transitions are work of `tasks`: a client that hangs up cannot stop one midway.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.decisions import coldest_suspended, least_recently_used
from buntime.lifecycle.sealing import Damaged
from buntime.lifecycle.snapshots import Interrupted, Snapshots, Transfer
from buntime.ports import (
    ArchiveUnavailable,
    ObjectMissing,
    Observed,
    Run,
    Sandbox,
    Sandboxes,
    SandboxGone,
    Store,
    VolumeLost,
    VolumeUnsendable,
)
from buntime.session import Event, Session, Snapshot, State

log = structlog.get_logger()

OBSERVE_SECONDS = 2.0  # a session that keeps its guest from answering does not hold up a GET
RELIEVED_AT_ONCE = 4  # suspended sessions that go to deep sleep early
# Why a volume is not in the archive now; an archive that lies may have lost what it has just taken.
UNSAVED = (ArchiveUnavailable, ObjectMissing, Damaged, VolumeUnsendable, VolumeLost, errors.Unavailable)
WAKE_SECONDS = 8.0  # a request waits for a wake; the wake itself goes on


class Leases:
    def __init__(
        self, store: Store, sandboxes: Sandboxes, snapshots: Snapshots, tasks: Tasks, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._tasks = tasks
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._archiving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()
        self._lent: dict[str, float] = {}  # session → until when, on the loop's clock
        self._risen: dict[str, float] = {}  # session → when it last woke from deep sleep, on the loop's clock
        self._on_wake: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # set when it was started
        self._seen: dict[str, Observed] = {}
        self._unsendable: set[str] = set()  # what cannot be archived does not change before the session wakes

    @asynccontextmanager
    async def use(self, session: Session) -> AsyncIterator[Sandbox]:
        """The session's sandbox, awake; started on its volume where it does not run. Counts as activity.

        Raises SessionNotFound, Unavailable, SessionDamaged, and InvalidState when the sandbox ends while it is in use.
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

    def lend(self, session: Session, seconds: float) -> None:
        """From within `use`: for so long the session is not suspended by itself. What somebody was permitted to do with
        it then is not seen here."""
        until = asyncio.get_running_loop().time() + seconds
        self._lent[session.id] = max(self._lent.get(session.id, 0.0), until)

    async def spent(self, session_id: str) -> None:
        """Waits until all that was lent by now is over."""
        await asyncio.sleep(self._lent.get(session_id, 0.0) - asyncio.get_running_loop().time())

    def awake_since_deep_sleep(self, session_id: str) -> float | None:
        """Seconds since the session woke from a deep sleep, which had ended its processes; None where it did not since
        this server started."""
        risen = self._risen.get(session_id)
        return None if risen is None else asyncio.get_running_loop().time() - risen

    async def wake(self, session_id: str) -> Session:
        """The session, awake. Counts as activity. Raises SessionNotFound, Unavailable and SessionDamaged."""
        await self._touch(session_id)
        await self._woken(session_id)
        return await self._present(session_id)

    async def suspend(self, session_id: str, quiet_since: float | None = None) -> bool:
        """Freezes the sandbox and stores that; False, and nothing done, where somebody uses the session.

        `quiet_since`: only if there was no activity since (Unix seconds).
        """
        return await self._tasks.finish(self._suspend(session_id, quiet_since), f"suspend {session_id}")

    async def deep_sleep(self, session_id: str, quiet_since: float | None = None) -> bool:
        """Ends its processes, gently at first, and gives the sandbox back; its files stay, and are archived behind it.
        Else as `suspend`."""
        return await self._tasks.finish(self._deep_sleep(session_id, quiet_since), f"deep sleep of {session_id}")

    async def archive(self, session_id: str) -> bool:
        """Saves the volume of a session in deep sleep, if that is to be done; whether it need not be tried again.

        A session that wakes meanwhile comes first. Callers that come together share one save.
        """
        return await self._tasks.finish(self._archive(session_id), f"archive {session_id}")

    async def evict(self, session_id: str) -> None:
        """Removes the volume of a session in deep sleep from this host, if it is archived."""
        await self._tasks.finish(self._evict(session_id), f"evict {session_id}")

    async def settle(self) -> None:
        """At start, when the sandboxes were recovered: a session whose processes have ended without us, as at a reboot
        of the host, is in deep sleep. One whose volume is gone too falls back to its newest snapshot."""
        for session in await self._store.all_sessions():
            if session.state is State.DELETING or await self._sandboxes.get(session.sandbox) is not None:
                continue
            there = self._sandboxes.has_volume(session.sandbox)
            if not there and not session.archived:
                newest = session.snapshot.name if session.snapshot else None
                log.error("volume_lost", session=session.id, sandbox=session.sandbox, falls_back_to=newest)
            if there or session.snapshot:
                await self._change(session.id, partial(_settled, there=there))

    async def sweep(self) -> None:
        """At start: removes objects of the archive that a killed server left without a name in the store. Those of
        sessions that the store does not know are told of and left alone: it may be an older copy of the store."""
        try:
            owners = await self._snapshots.owners()
        except ArchiveUnavailable as away:
            log.warning("archive_not_swept", reason=str(away))
            return
        unknown = 0
        for session_id in owners:
            async with self._archiving.setdefault(session_id, asyncio.Lock()):  # what is saved now has no name yet
                session = await self._store.get_session(session_id)
                unknown += session is None
                if session is not None and session.state is not State.DELETING:
                    await self._snapshots.tidy(session)
        if unknown:
            log.warning("archive_of_unknown_sessions", count=unknown)

    async def relieve(self) -> bool:
        """Where this host is short of something: puts the coldest suspended sessions to deep sleep, evicts volumes that
        are archived. Some at a time; whether that freed anything."""
        strain = self._sandboxes.strain()
        if not strain.memory and not strain.disk:
            return False
        sessions = await self._store.all_sessions()
        freed = False
        if strain.memory:
            for session in coldest_suspended(sessions)[:RELIEVED_AT_ONCE]:
                with suppress(errors.SessionNotFound):  # deleted meanwhile
                    freed |= await self.deep_sleep(session.id, session.last_active)
                    log.warning("slept_early", session=session.id, short_of=strain.memory)
        if strain.disk:
            for session in least_recently_used(sessions, self._sandboxes.cached(), strain.disk):
                with suppress(errors.SessionNotFound):
                    await self.evict(session.id)
                freed = True
        return freed

    async def end(self, session: Session, work: Callable[[str], Awaitable[None]]) -> None:
        """`work` on the sandbox of a session that is marked as deleted, when no transition is under way."""
        await self._snapshots.interrupt(session.id)
        async with self._lock(session.id):
            await self._snapshots.interrupt(session.id)  # a save that began while we waited
            await work(session.sandbox)

    async def touched(self, session_id: str) -> None:
        """Clients sent something on open connections of the session: that is activity, and wakes a suspended one."""
        await self._touch(session_id)
        session = await self._store.get_session(session_id)
        if session is not None and session.state is State.IDLE:
            await self.wake(session_id)

    async def observe(self, session: Session) -> Observed:
        """What is inside: now for an active session, as last seen for one that sleeps. Not activity."""
        sandbox = await self._sandboxes.get(session.sandbox) if session.state is State.ACTIVE else None
        if sandbox is not None:
            try:
                async with asyncio.timeout(OBSERVE_SECONDS):
                    self._seen[session.id] = await sandbox.observe()
            except (TimeoutError, SandboxGone, errors.BuntimeError) as failed:  # nothing hangs on what is seen
                log.info("observe_failed", session=session.id, reason=str(failed) or repr(failed))
        return self.last_seen(session)

    def last_seen(self, session: Session) -> Observed:
        return self._seen.get(session.id) or Observed(session.files, session.processes)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._lent.pop(session_id, None)
        self._risen.pop(session_id, None)
        self._seen.pop(session_id, None)
        self._unsendable.discard(session_id)

    # --- inside ---

    async def _awake(self, session_id: str) -> Sandbox:
        lock = self._lock(session_id)
        session = await self._store.get_session(session_id)
        if session is not None and session.state is State.ACTIVE:
            sandbox = await self._sandboxes.get(session.sandbox)
            # the lease is taken already: a suspension that has not begun now will find it
            if sandbox is not None and not lock.locked():
                return sandbox
        return await self._woken(session_id)

    async def _woken(self, session_id: str) -> Sandbox:
        """Waits for a wake, for a time; the wake goes on. Raises Unavailable, then."""
        try:
            async with asyncio.timeout(WAKE_SECONDS):
                try:
                    return await self._tasks.finish(self._wake(session_id), f"wake {session_id}")
                except errors.Unavailable:
                    if not await self.relieve():
                        raise
                return await self._tasks.finish(self._wake(session_id), f"wake {session_id}")
        except TimeoutError:
            raise errors.StillWaking from None

    async def _wake(self, session_id: str, *, suspect: bool = False) -> Sandbox:
        """`suspect`: a sandbox that runs is asked whether it still answers, and replaced if it does not."""
        async with self._lock(session_id):
            session = await self._present(session_id)
            sandbox = await self._sandboxes.get(session.sandbox)
            if sandbox is not None and session.state is State.IDLE:
                await sandbox.thaw()
            self._unsendable.discard(session_id)
            if sandbox is None or suspect:
                session = await self._with_volume(session)
                sandbox = await self._sandboxes.start(session)
                reached("wake: started")
            if session.state is not State.ACTIVE:
                slept_deep = session.state is State.DEEP_SLEEP
                event = Event.WAKE if slept_deep else Event.RESUME
                newest, previous = session.snapshot, session.previous
                await self._change(session.id, lambda s: replace(s.after(event), snapshot=newest, previous=previous))
                reached("wake: stored")
                log.info("session_woken", session=session.id, woke_from=session.state.value)
                if slept_deep:
                    self._risen[session_id] = asyncio.get_running_loop().time()
                if slept_deep and session.on_wake is not None:
                    started = self._on_wake[session_id] = asyncio.Event()
                    self._tasks.start(_run_on_wake(sandbox, session, started), f"onWake of {session.id}")
            return sandbox

    async def _with_volume(self, session: Session) -> Session:
        """The session when its volume is on this host and nobody reads it. Raises Unavailable and SessionDamaged."""
        await self._snapshots.interrupt(session.id)
        if self._sandboxes.has_volume(session.sandbox):
            return session
        if not session.archived:
            log.error("volume_lost", session=session.id, sandbox=session.sandbox)
        if session.state is not State.DEEP_SLEEP:
            raise errors.SessionDamaged("The session's files are not on this host any more.", reason="volume_lost")
        try:
            return await self._snapshots.restore(session)
        except errors.Unavailable:
            await self._present(session.id)  # one that is deleted meanwhile interrupts it, and is not found
            raise

    async def _suspend(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._lock(session_id):
            session = await self._present(session_id)
            sandbox = await self._sandboxes.get(session.sandbox)
            if session.state is not State.ACTIVE or sandbox is None or _recent(session, quiet_since):
                return session.state in (State.IDLE, State.DEEP_SLEEP)
            await self._on_wake_started(session_id)
            seen = await self.observe(session)
            # from here on whoever comes finds the lock taken, and waits
            if self._in_use(session_id) or not await sandbox.freeze():
                return False
            try:
                await self._change(session.id, lambda s: _with_counts(s.after(Event.SUSPEND), seen))
                reached("suspend: stored")
            except BaseException:
                await sandbox.thaw()
                raise
            return True

    async def _deep_sleep(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._lock(session_id):
            session = await self._present(session_id)
            if session.state is State.DEEP_SLEEP or _recent(session, quiet_since):
                return session.state is State.DEEP_SLEEP
            await self._on_wake_started(session_id)
            seen = await self.observe(session)
            if self._in_use(session_id):
                return False
            sandbox = await self._sandboxes.get(session.sandbox)
            if sandbox is None:
                await self._sandboxes.stop(session.sandbox)  # what it wrote before it ended is on disk then
            elif not await sandbox.quiesce():
                return False
            reached("sleep: quiet")
            try:
                await self._change(session.id, lambda s: _with_counts(_down(s), seen))
            except BaseException:
                if sandbox is not None:
                    await sandbox.thaw()
                raise
            reached("sleep: stored")
            await self._sandboxes.stop(session.sandbox)
            reached("sleep: stopped")
        self._tasks.start(self._archive(session_id), f"archive {session_id}")
        return True

    async def _archive(self, session_id: str) -> bool:
        async with self._archiving.setdefault(session_id, asyncio.Lock()):
            with self._snapshots.transfer(session_id) as transfer:
                try:
                    session = await self._begin_archive(session_id)
                    if session is None:
                        return session_id not in self._unsendable
                    snapshot = await self._snapshots.save(session, transfer)
                    session = await self._name(session_id, snapshot, transfer)
                except (Interrupted, errors.SessionNotFound):
                    return True
                except UNSAVED as failed:
                    if isinstance(failed, VolumeUnsendable):
                        self._unsendable.add(session_id)
                    log.warning("session_not_archived", session=session_id, reason=str(failed) or repr(failed))
                    return False
            reached("archive: named")
            await self._snapshots.tidy(session)
            reached("archive: tidied")
            return True

    async def _begin_archive(self, session_id: str) -> Session | None:
        """The session with a key, its sandbox stopped; None where there is nothing to archive."""
        async with self._lock(session_id):
            session = await self._present(session_id)
            if session.state is not State.DEEP_SLEEP or session.archived or session_id in self._unsendable:
                return None
            if session.sandbox not in self._sandboxes.cached():
                await self._sandboxes.stop(session.sandbox)
            session = await self._change(session_id, self._snapshots.with_key)
            reached("archive: key stored")
            return session

    async def _name(self, session_id: str, snapshot: Snapshot, transfer: Transfer) -> Session:
        """From now on a wake can rely on the snapshot. Raises Interrupted: then nobody names it."""
        async with self._lock(session_id):
            try:
                transfer.check()
                return await self._change(
                    session_id, lambda s: replace(s, snapshot=snapshot, previous=s.snapshot, archived=True)
                )
            finally:
                self._snapshots.named(snapshot)

    async def _evict(self, session_id: str) -> None:
        async with self._lock(session_id):
            session = await self._present(session_id)
            if session.state is State.DEEP_SLEEP and session.archived:
                await self._sandboxes.evict(session.sandbox)
                reached("evict: done")
                log.info("volume_evicted", session=session_id)

    def _in_use(self, session_id: str) -> bool:
        if self._held[session_id] or self._lent.get(session_id, 0.0) > asyncio.get_running_loop().time():
            return True
        self._lent.pop(session_id, None)
        return False

    async def _change(self, session_id: str, change: Callable[[Session], Session]) -> Session:
        """Stores what `change` makes of the session, with what else changed meanwhile kept. Raises SessionNotFound."""
        while True:
            session = await self._present(session_id)
            changed = change(session)
            if changed == session:
                return session
            try:
                return await self._store.change_session(session, changed)
            except errors.StaleSession:
                continue

    async def _present(self, session_id: str) -> Session:
        session = await self._store.get_session(session_id)
        if session is None or session.state is State.DELETING:
            raise errors.SessionNotFound(session_id)
        return session

    async def _on_wake_started(self, session_id: str) -> None:
        """What a wake runs has no lease: frozen in the middle it would be taken for a guest that does not answer."""
        started = self._on_wake.get(session_id)
        if started is not None:
            await started.wait()

    async def _touch(self, session_id: str) -> None:
        await self._store.touch_session(session_id, int(self._clock()))

    def _lock(self, session_id: str) -> asyncio.Lock:
        return self._locks.setdefault(session_id, asyncio.Lock())


ON_WAKE_LOG = "/var/log/on-wake.log"  # in the session
ON_WAKE_SECONDS = 60.0  # for the shell that starts it; what it leaves running goes on


def _settled(session: Session, *, there: bool) -> Session:
    if session.state is not State.DEEP_SLEEP:
        return replace(_down(session), archived=not there)
    return session if there else replace(session, archived=True)


def _down(session: Session) -> Session:
    """The session in deep sleep."""
    return (session.after(Event.SUSPEND) if session.state is State.ACTIVE else session).after(Event.DEEP_SLEEP)


def _with_counts(session: Session, seen: Observed) -> Session:
    return replace(session, files=seen.files, processes=seen.processes)


def _recent(session: Session, quiet_since: float | None) -> bool:
    return quiet_since is not None and session.last_active > quiet_since


async def _run_on_wake(sandbox: Sandbox, session: Session, started: asyncio.Event) -> None:
    """The session's own command, as a process in its background; its output is in ON_WAKE_LOG."""
    command = f"exec >>{ON_WAKE_LOG} 2>&1; (\n{session.on_wake}\n) &"
    try:
        await sandbox.run(Run(timeout=ON_WAKE_SECONDS, command=command, env=session.env))
    except (SandboxGone, errors.BuntimeError) as failed:
        log.warning("on_wake_failed", session=session.id, reason=str(failed))
    finally:
        started.set()
