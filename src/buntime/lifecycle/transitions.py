"""Between awake, suspended and deep sleep.

Each transition holds the session's lock and is work of `tasks`: a client that hangs up cannot stop one midway.
Going to sleep gives way to any use of the session (see `holds`). A request that arrives during a transition waits for
its end, then works.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks, within
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.metering import Metering
from buntime.lifecycle.monitor import Monitor
from buntime.lifecycle.observations import Observations
from buntime.lifecycle.on_wake import OnWake
from buntime.lifecycle.records import forget_records, has_foreign_records
from buntime.lifecycle.restricting import Restricting
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.services import Services
from buntime.ports import Observed, Owners, Sandbox, Sandboxes, Store, VolumeLost
from buntime.session import Event, Session, State

log = structlog.get_logger()

AT_ONCE = 500  # sessions that a start looks at in one turn of the loop
ADOPT_SECONDS = 8.0  # a transition waits this long for what an earlier server left to be taken over; that goes on
_RISING = {State.IDLE: Event.RESUME, State.DEEP_SLEEP: Event.WAKE}


class Transitions:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        changes: Changes,
        holds: Holds,
        observations: Observations,
        archiving: Archiving,
        layers: Layers,
        services: Services,
        tasks: Tasks,
        monitor: Monitor,
        metering: Metering,
        owners: Owners,
        restricting: Restricting,
    ) -> None:
        self._owners = owners
        self._restricting = restricting
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._changes = changes
        self._holds = holds
        self._observations = observations
        self._archiving = archiving
        self._layers = layers
        self._services = services
        self._tasks = tasks
        self._monitor = monitor
        self._metering = metering
        self._on_wake = OnWake(tasks)
        self._risen: dict[str, float] = {}  # session → when it last woke from deep sleep, on the loop's clock

    async def wake(self, session_id: str) -> Sandbox:
        """The running sandbox of a session that is active from now on. Raises SessionNotFound, Unavailable and
        SessionDamaged."""
        return await self._tasks.finish(self._wake(session_id), f"wake {session_id}")

    async def restart(self, session_id: str) -> Sandbox:
        """The same for a session whose sandbox did not answer: it is replaced, unless it answers now."""
        return await self._tasks.finish(self._wake(session_id, suspect=True), f"restart {session_id}")

    async def adopted(self, session_id: str) -> None:
        """Returns when a sandbox that an earlier server left for the session is taken over or gone. To be called
        without the session's lock: a delete, which ends this at once, must not wait for the guest.

        Raises Unavailable, and StillWaking after ADOPT_SECONDS.
        """
        try:
            await within(ADOPT_SECONDS, self._adopted(session_id), f"sandbox of {session_id}")
        except TimeoutError:
            raise errors.StillWaking from None

    async def look(self, session_id: str) -> None:
        """Looks inside a session that is about to sleep. Raises what `adopted` raises.

        Waits for the guest, for a limited time. So it is to be called without the session's lock, and without a place
        that others wait for.
        """
        await self.adopted(session_id)
        if session := await self._mine(session_id):
            await self._observations.observe(session)

    async def suspend(self, session_id: str, quiet_since: float | None = None, *, looked: bool = False) -> bool:
        """Freezes the sandbox and stores that. Returns False, with nothing changed, when the session is in use. One
        whose sandbox has ended without us goes to deep sleep. `looked`: the caller has called `look`.

        `quiet_since` (Unix seconds): suspends only if there was no activity since then. It then waits for no service
        that is being started or stopped, but returns False: a hostile guest can make that take minutes.

        Raises what `look` raises.
        """
        if quiet_since is not None and self.is_used(session_id):
            return False
        if not looked:
            await self.look(session_id)
        return await self._tasks.finish(self._suspend(session_id, quiet_since), f"suspend {session_id}")

    async def deep_sleep(self, session_id: str, quiet_since: float | None = None, *, looked: bool = False) -> bool:
        """Ends the session's processes, gently at first, and gives its sandbox back. Its files stay, and are archived
        in the background. Otherwise the same as `suspend`."""
        if quiet_since is not None and self.is_used(session_id):
            return False
        if not looked:
            await self.look(session_id)
        return await self._tasks.finish(self._deep_sleep(session_id, quiet_since), f"deep sleep of {session_id}")

    def is_used(self, session_id: str) -> bool:
        """Whether a request uses the session, its services are being started or stopped, or its `onWake` is started."""
        busy = self._services.is_busy(session_id) or self._on_wake.is_starting(session_id)
        return busy or self._holds.in_use(session_id)

    def awake_since_deep_sleep(self, session_id: str) -> float | None:
        """Seconds since the session last woke from deep sleep, which had ended its processes. None when it did not
        since this server started."""
        risen = self._risen.get(session_id)
        return None if risen is None else asyncio.get_running_loop().time() - risen

    async def on_wake_started(self, session_id: str) -> None:
        """Waits until the session's command for its last wake has started, if it has one."""
        await self._on_wake.started(session_id)

    async def settle(self) -> None:
        """At start, after the sandboxes were recovered: a session whose processes have ended without us, as at a
        reboot of the host, is in deep sleep. One whose volume is gone too falls back to its last deep sleep. If the
        archive has nothing of it, or a checkpoint that was taken since, its files are lost."""
        for number, session in enumerate(await self._store.all_sessions()):
            await self._settle(session)
            if not number % AT_ONCE:
                await asyncio.sleep(0)

    async def settle_one(self, session_id: str) -> None:
        """The same for a session whose sandbox turned out not to go on. Nothing happens if it has another one."""
        async with self._holds.lock(session_id):
            session = await self._store.get_session(session_id)
            if session is not None:
                await self._settle(session)

    async def settle_ended(self, session_id: str) -> bool:
        """The same for an awake session whose sandbox has ended without us since. Returns False, with nothing changed,
        when a request uses the session: that starts another sandbox."""
        return await self._tasks.finish(self._settle_ended(session_id), f"settle {session_id}")

    async def _settle_ended(self, session_id: str) -> bool:
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if session.state is State.DEEP_SLEEP or self._sandboxes.is_running(session.sandbox):
                return True
            if self.is_used(session_id):
                return False
            await self._lay_down(session)
            return True

    async def _lay_down(self, session: Session) -> None:
        """Stores the deep sleep of an awake session whose sandbox has ended without us.

        Its window of usage ends where it was last noted: nothing is noted after the end, and so none of that is billed
        as awake.
        """
        seen = await self._observations.observe(session)
        log.warning("sandbox_ended", session=session.id, sandbox=session.sandbox, was=session.state.value)
        self._monitor.lost("sandbox")
        await self._sandboxes.stop(session)  # then all that it wrote before it ended is on disk
        await self._settle(session, seen)
        reached("settle: stored")
        self._archiving.start(session.id)

    async def _settle(self, session: Session, seen: Observed | None = None) -> None:
        """`session`: as it is stored now. A start looks at each, so it asks the store only where something changes.
        `seen`: what was last seen in it; None: what is stored."""
        if session.state is State.DELETING or self._sandboxes.is_running(session.sandbox):
            return
        there = self._sandboxes.volumes.exists(session.volume)
        if not there and not session.archived:
            newest = session.saved.name if session.saved and not session.saved.is_checkpoint else None
            log.error("volume_lost", session=session.id, volume=session.volume, falls_back_to=newest)
            self._monitor.lost("volume")
        if _settled(session, there=there, seen=seen) != session:
            await self._changes.change(session.id, partial(_settled, there=there, seen=seen))

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._risen.pop(session_id, None)

    async def _wake(self, session_id: str, *, suspect: bool = False) -> Sandbox:
        """`suspect`: the host asks a running sandbox whether it still answers, and replaces it if it does not."""
        asked_at = time.perf_counter()  # the loop's clock stands still within a turn
        await self._holds.not_leaving(session_id)
        await self._adopted(session_id)
        async with self._holds.lock(session_id):
            session = await self._own(session_id)
            sandbox = await self._sandboxes.get(session.sandbox)
            if sandbox is not None and self._restricting.is_late(session_id):
                await self._restricting.put(session_id)
            if sandbox is not None and session.state is State.IDLE:
                await sandbox.thaw()
            self._archiving.forget(session_id)
            if sandbox is None or suspect:
                sandbox, session = await self._started(session, sandbox)
            await self._store_awake(session, sandbox)
            if session.state is not State.ACTIVE:
                self._monitor.woke(session.state, time.perf_counter() - asked_at)
                log.info("session_woken", session=session_id, woke_from=session.state.value)
            if session.state is State.DEEP_SLEEP:
                self._risen[session_id] = asyncio.get_running_loop().time()
                self._on_wake.start(session, sandbox)
            self._services.look(session, sandbox)
            return sandbox

    async def _adopted(self, session_id: str) -> None:
        """The same as `adopted`, without a limit."""
        if session := await self._mine(session_id):
            await self._sandboxes.get(session.sandbox)

    async def _mine(self, session_id: str) -> Session | None:
        session = await self._store.get_session(session_id)
        return session if session is not None and self._owners.is_mine(session) else None

    async def _own(self, session_id: str) -> Session:
        """The session, also if this host has given it up since a request asked who has it. Raises SessionNotFound and
        what `Owners.here` raises."""
        try:
            return await self._changes.present(session_id)
        except errors.NotOwner:
            session = await self._store.get_session(session_id)
            if session is None:
                raise errors.SessionNotFound(session_id) from None
            return await self._owners.here(session)

    async def _started(self, session: Session, before: Sandbox | None) -> tuple[Sandbox, Session]:
        """The sandbox on the session's volume, and the session. `before`: the one that runs but may not answer."""
        session = await self._with_volume(session)
        sandbox = await self._sandboxes.start(session)
        if session.state is not State.DEEP_SLEEP and sandbox is not before:
            self._monitor.lost("sandbox")
        reached("wake: started")
        return sandbox, session

    async def _with_volume(self, session: Session) -> Session:
        """The session, with its volume on this host and nothing reading it. Raises Unavailable and SessionDamaged."""
        await self._saving.interrupt(session.id)
        try:
            await self._layers.bring_image(session.image)
        except VolumeLost:
            raise errors.SnapshotDamaged from None
        if self._sandboxes.volumes.exists(session.volume):
            return session
        if not session.archived:
            log.error("volume_lost", session=session.id, volume=session.volume)
            self._monitor.lost("volume")
        if session.state is not State.DEEP_SLEEP:
            raise self._saving.lost(session)
        try:
            return await self._saving.restore(session)
        except errors.Unavailable:
            await self._changes.present(session.id)  # a delete interrupts a restore: then the session is not found
            raise

    async def _store_awake(self, session: Session, sandbox: Sandbox) -> None:
        """Stores that the sandbox serves the session. A new one that cannot be stored is stopped. One that was thawed
        for a session that has moved meanwhile is frozen again."""
        newest, previous = session.saved, session.previous

        def awake(stored: Session) -> Session:
            if stored.epoch != session.epoch:  # it moved and came back: the sandbox is on earlier files
                raise errors.NotOwner(session.id)
            risen = stored if stored.state is State.ACTIVE else stored.after(_RISING[stored.state])
            return replace(risen, sandbox=sandbox.id, saved=newest, previous=previous)

        try:
            if has_foreign_records(session):
                await forget_records(sandbox)
            is_new = sandbox.id != session.sandbox or session.state is State.DEEP_SLEEP
            # a frozen sandbox has used nothing, and its request waits
            used = await self._metering.read_next(session, sandbox) if is_new else self._metering.now(session.id)
            try:
                stored = await self._changes.change(session.id, awake, used)
            except (errors.NotOwner, errors.MayNotAct):
                if session.state is State.IDLE:
                    await sandbox.freeze()
                raise
            if stored.network != session.network:  # it was changed while the sandbox started
                await self._restricting.put(session.id)
        except BaseException:
            if sandbox.id != session.sandbox:
                await self._sandboxes.stop(replace(session, sandbox=sandbox.id))
            raise
        reached("wake: stored")

    async def _suspend(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            sandbox = await self._sandboxes.get(session.sandbox)
            if session.state is not State.ACTIVE or _recent(session, quiet_since):
                return session.state in (State.IDLE, State.DEEP_SLEEP)
            if quiet_since is None:
                await self._on_wake.started(session_id)
                await self._services.settled(session_id)
            elif self.is_used(session_id):
                return False
            if sandbox is None:
                if self.is_used(session_id):
                    return False
                await self._lay_down(session)
                return True
            seen = self._observations.last_of(session, sandbox)
            # a request that arrives from here on finds the lock taken, and waits
            if self.is_used(session_id) or not await sandbox.freeze():
                return False
            await self._store_asleep(session, sandbox, lambda s: _with_counts(s.after(Event.SUSPEND), seen))
            reached("suspend: stored")
            return True

    async def _deep_sleep(self, session_id: str, quiet_since: float | None) -> bool:
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if session.state is State.DEEP_SLEEP or _recent(session, quiet_since):
                return session.state is State.DEEP_SLEEP
            if quiet_since is None:
                await self._on_wake.started(session_id)
                await self._services.settled(session_id)
            elif self.is_used(session_id):
                return False
            sandbox = await self._sandboxes.get(session.sandbox)
            seen = self._observations.last_of(session, sandbox)
            if self.is_used(session_id):
                return False
            if sandbox is None:
                await self._sandboxes.stop(session)  # then all that it wrote before it ended is on disk
            elif not await _quiet(sandbox):
                return False
            reached("sleep: quiet")
            await self._store_asleep(session, sandbox, lambda s: _with_counts(s.down(), seen))
            reached("sleep: stored")
            await self._sandboxes.stop(session)
            reached("sleep: stopped")
        self._archiving.start(session_id)
        return True

    async def _store_asleep(
        self, session: Session, sandbox: Sandbox | None, change: Callable[[Session], Session]
    ) -> None:
        """When that fails, the sandbox goes on, unless another host has the session now."""
        try:
            await self._changes.change(session.id, change, await self._metering.read(session))
        except BaseException:
            if sandbox is not None and not await self._has_moved(session):
                await sandbox.thaw()
            raise

    async def _has_moved(self, session: Session) -> bool:
        """Whether another host has had it since. What moves after this is frozen before this host acts again."""
        with suppress(errors.Unavailable):
            stored = await self._store.get_session(session.id)
            return stored is not None and (stored.host, stored.epoch) != (session.host, session.epoch)
        return False


async def _quiet(sandbox: Sandbox) -> bool:
    """Returns what `quiesce` does. When it fails, the sandbox is not left frozen: its session stays awake."""
    try:
        return await sandbox.quiesce()
    except BaseException:
        await sandbox.thaw()
        raise


def _settled(session: Session, *, there: bool, seen: Observed | None) -> Session:
    session = session if seen is None else _with_counts(session, seen)
    if session.state is not State.DEEP_SLEEP:
        return replace(session.down(), archived=not there)
    if not there:
        return replace(session, archived=True)
    # a volume that was lost at an earlier start may be back, and is newer than a checkpoint
    return replace(session, archived=session.archived and not (session.saved and session.saved.is_checkpoint))


def _with_counts(session: Session, seen: Observed) -> Session:
    return replace(session, files=seen.files, processes=seen.processes)


def _recent(session: Session, quiet_since: float | None) -> bool:
    return quiet_since is not None and session.last_active > quiet_since
