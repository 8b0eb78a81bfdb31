"""Checkpoints: what sessions change while they are awake is archived from time to time.

A checkpoint keeps the state of the volume as a parent and sends that, so the session's programs and requests go on
meanwhile. It holds the session's lock for two stored changes alone. Nothing waits for a checkpoint but the session's
next save; a wake that starts a sandbox and a delete interrupt it. The volume on the host is always newer, and is what a
wake uses.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from buntime import errors
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.account_plans import AccountPlans
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.deadlines import Deadlines
from buntime.lifecycle.decisions import archived_until, before_checkpoint
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.monitor import Monitor
from buntime.lifecycle.saving import SAVES_AT_ONCE, UNSAVED, Saving
from buntime.lifecycle.transfers import Interrupted, Transfer
from buntime.ports import Sandboxes, Store
from buntime.session import NEVER, SavedVolume, Session, State

log = structlog.get_logger()

LOOKS_A_TICK = 1000  # at sessions that are due; each takes about 0.1 ms, most of it in a thread
AT_ONCE = SAVES_AT_ONCE  # checkpoints: more would only wait for one another
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 600.0  # seconds before one that failed is tried again


class Checkpoints:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        changes: Changes,
        holds: Holds,
        archiving: Archiving,
        plans: AccountPlans,
        tasks: Tasks,
        clock: Callable[[], float],
        monitor: Monitor,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._changes = changes
        self._holds = holds
        self._archiving = archiving
        self._plans = plans
        self._tasks = tasks
        self._clock = clock
        self._monitor = monitor
        self._deadlines = Deadlines()
        self._current: dict[str, float] = {}  # session → when nothing of it was missing in the archive
        self._resting: set[str] = set()  # sessions that change nothing, and of which nothing is missing there
        self._took: dict[str, float] = {}  # session → seconds of its last checkpoint
        self._failures: dict[str, int] = {}  # in a row
        self._under_way: set[str] = set()
        self._looking = False

    @property
    def at_rest(self) -> bool:
        return not self._looking and not self._under_way

    async def note(self, session: Session) -> None:
        """The stored session is new, or has changed."""
        session_id = session.id
        if session.state is State.DELETING:
            self.forget(session_id)
        elif session.state is State.DEEP_SLEEP:
            self._put_off(session_id)
            if session.archived:
                self._resting.add(session_id)
        elif session_id not in self._under_way:
            if session_id in self._resting:
                self._resting.discard(session_id)
                self._current[session_id] = self._clock()
            await self._plan(session)

    def begin_due(self, now: float) -> None:
        """Begins what is due, in the background. Its cost depends on how many are due."""
        if not self._looking and self._deadlines.is_due(now):
            self._looking = True
            self._tasks.start(self._look(now), "checkpoints")

    async def archive(self, session_id: str) -> bool:
        """Archives what a suspended session has changed, whatever its sleepPolicy says. Returns False when it should be
        tried again."""
        session = await self._store.get_session(session_id)
        if session is None or not _is_awake(session):
            return True
        if session_id in self._under_way:
            return False
        states = {session.volume: session.saved.mark} if session.saved else {}
        if states and not await self._sandboxes.volumes.changed(states):
            return True
        self._under_way.add(session_id)
        try:
            return await self._checkpoint(session_id)
        finally:
            self._under_way.discard(session_id)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._put_off(session_id)
        self._resting.discard(session_id)
        for remembered in (self._current, self._took, self._failures):
            remembered.pop(session_id, None)

    # --- when ---

    async def _plan(self, session: Session) -> None:
        every = await self._every(session)
        if every == NEVER:
            self._put_off(session.id)
        else:
            wait = before_checkpoint(every, self._took.get(session.id, 0.0))
            self._deadlines.put(session.id, self._archived_until(session) + wait)

    def _archived_until(self, session: Session) -> float:
        return archived_until(session, self._current.get(session.id, 0.0), self._clock())

    async def _every(self, session: Session) -> int:
        """Seconds, or NEVER."""
        every = session.sleep_policy.checkpoint_every
        if every is not None:
            return every
        plan = await self._plans.of(session.account)
        return NEVER if plan is None else plan.checkpoint_every

    def _put_off(self, session_id: str) -> None:
        """Until the session changes."""
        self._deadlines.drop(session_id)
        self._saving.late.pop(session_id, None)

    async def _look(self, now: float) -> None:
        """At sessions that are due: begins checkpoints of those that have changed, the longest overdue first."""
        due, taken = dict[str, Session](), self._deadlines.take(now, LOOKS_A_TICK)
        try:
            for session_id in taken:
                session = await self._store.get_session(session_id)
                if session is not None and _is_awake(session) and session_id not in self._under_way:
                    due[session_id] = session
            known = {name for name, session in due.items() if session.saved is None or name in self._saving.late}
            states = {each.volume: each.saved.mark for each in due.values() if each.saved and each.id not in known}
            changed = await self._sandboxes.volumes.changed(states)
            for session_id, session in due.items():
                if session_id in known or session.volume in changed:
                    await self._begin(session)
                else:
                    await self._leave(session, now)
        except Exception:  # the sessions must not be forgotten
            log.exception("checkpoints_not_begun")
            for session_id in taken:
                self._deadlines.put(session_id, self._clock() + SHORTEST_WAIT)
        finally:
            self._looking = False

    async def _leave(self, session: Session, now: float) -> None:
        """Nothing of it is missing in the archive."""
        self._current[session.id] = now
        self._saving.late.pop(session.id, None)
        self._failures.pop(session.id, None)
        if session.state is State.ACTIVE:
            await self._plan(session)
        else:
            self._resting.add(session.id)

    async def _begin(self, session: Session) -> None:
        every = await self._every(session)
        if every == NEVER:  # the plan was changed
            return
        due = self._saving.late.setdefault(session.id, self._archived_until(session) + every)
        if len(self._under_way) < AT_ONCE:
            self._under_way.add(session.id)
            self._tasks.start(self._take(session.id), f"checkpoint of {session.id}")
        else:  # its turn comes
            self._deadlines.put(session.id, min(due, self._clock()))

    # --- one checkpoint ---

    async def _take(self, session_id: str) -> None:
        done, now = False, asyncio.get_running_loop().time
        began = now()
        try:
            done = await self._checkpoint(session_id)
        except errors.BuntimeError as failed:
            log.warning("checkpoint_failed", session=session_id, reason=failed.message)
        except Exception:  # the boundary of a session: a failure of one must not stop the others
            log.exception("checkpoint_failed", session=session_id)
        finally:
            self._under_way.discard(session_id)
        with suppress(errors.Unavailable):  # it is looked at soon
            await self._look_again(session_id, now() - began if done else None)

    async def _look_again(self, session_id: str, took: float | None) -> None:
        """`took`: seconds; None: it failed. Each failure in a row doubles the wait."""
        self._deadlines.put(session_id, self._clock() + SHORTEST_WAIT)  # should the store be away
        session = await self._store.get_session(session_id)
        if session is None:
            self.forget(session_id)
        elif not _is_awake(session):
            self._put_off(session_id)
        elif took is not None:
            self._took[session_id] = took
            self._saving.late.pop(session_id, None)
            self._failures.pop(session_id, None)
            await self._plan(session)
        else:
            failures = self._failures[session_id] = self._failures.get(session_id, 0) + 1
            wait = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(failures - 1, 20))
            self._deadlines.put(session_id, self._clock() + wait)

    async def _checkpoint(self, session_id: str) -> bool:
        """Returns False when it should be tried again."""
        async with self._archiving.one_save(session_id):
            began = asyncio.get_running_loop().time()
            with self._saving.transfer(session_id) as transfer:
                try:
                    session = await self._with_key(session_id)
                    if session is None:
                        return True
                    keep = partial(self._keep, session, transfer)
                    saved = await self._saving.save(session, transfer, session.saved, keep=keep)
                    session = await self._name(session, saved, transfer)
                except errors.SessionNotFound:
                    return True
                except (Interrupted, *UNSAVED) as failed:
                    log.warning("checkpoint_not_taken", session=session_id, reason=str(failed) or repr(failed))
                    await self._clean_up(session_id)
                    return False
            reached("checkpoint: named")
            self._monitor.checkpointed(asyncio.get_running_loop().time() - began)
            await self._saving.keep_parent(session, session.saved)
            reached("checkpoint: parent dropped")
            await self._saving.tidy(session, (session.saved, session.previous))
            reached("checkpoint: tidied")
            return True

    async def _with_key(self, session_id: str) -> Session | None:
        """The session with a key. None when it is not awake any more: then its deep sleep archives it."""
        async with self._holds.lock(session_id):
            session = await self._changes.present(session_id)
            if not _is_awake(session):
                return None
            session = await self._changes.change(session_id, self._saving.with_key)
            reached("checkpoint: key stored")
            return session

    async def _keep(self, session: Session, transfer: Transfer, mark: str) -> None:
        """Keeps the volume's state, between two writes of the server. Raises Interrupted."""
        async with self._holds.copying(session.id):
            transfer.check()
            await self._sandboxes.volumes.keep(session.volume, mark)

    async def _name(self, before: Session, saved: SavedVolume, transfer: Transfer) -> Session:
        """Raises Interrupted; then it stays unnamed."""
        async with self._holds.lock(before.id):
            try:
                transfer.check()
                return await self._changes.change(before.id, partial(_checkpointed, saved=saved, volume=before.volume))
            finally:
                self._saving.named(saved)

    async def _clean_up(self, session_id: str) -> None:
        """After one that failed: what the store names stays. Nothing is done where another host has the session, and
        may be saving it."""
        try:
            session = await self._changes.present(session_id)
        except (errors.SessionNotFound, errors.NotOwner):
            return
        await self._saving.keep_parent(session, session.saved)
        await self._saving.tidy(session, (session.saved, session.previous))


def _is_awake(session: Session) -> bool:
    return session.state in (State.ACTIVE, State.IDLE)


def _checkpointed(session: Session, saved: SavedVolume, volume: str) -> Session:
    """Raises Interrupted when the session has other files now."""
    if session.volume != volume:
        raise Interrupted
    return replace(session, saved=saved, previous=session.saved)
