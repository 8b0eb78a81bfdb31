"""Taking over the sandboxes that an earlier server has left running.

A start only looks for them. One is taken over when a request asks for it, or else in its turn behind: a host with
thousands of them answers at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes import record as records
from buntime.sandboxes.containers import Containers, Settings
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.pool import Pool
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import Session, State

log = structlog.get_logger()

AT_ONCE, TURN_SECONDS = 8, 2.0  # a slower adoption makes way for the next one and goes on beside it
AGAIN_SECONDS = 2.0  # between tries, while the host is fenced

Current = Callable[[str], Awaitable[Session | None]]


@dataclass(frozen=True, slots=True)
class Found:
    record: Record
    session: Session | None  # as the store had it at the start; nothing of this host changes it before the adoption

    @property
    def is_parked(self) -> bool:
        return self.record.session is None

    @property
    def can_wait(self) -> bool:
        """Not if it uses the volume of a session that is asleep, or is served by another sandbox."""
        return self.is_parked if self.session is None else self.session.state is not State.DEEP_SLEEP


@dataclass(eq=False, slots=True)
class UnderWay:
    found: Found
    outcome: asyncio.Future[None] = field(init=False)
    # it is adopted, killed or waits again; what is left of it may still have to be removed
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    looked_up: asyncio.Event = field(default_factory=asyncio.Event)
    sandbox: LocalSandbox | None = None  # once it was looked up
    limit: asyncio.Timeout | None = None  # while it waits for its guest or for the store
    is_killed: bool = False  # by `kill`: then it is neither added to those that run nor to the pool

    async def kill(self) -> None:
        """Kills it if it was looked up. Otherwise it waits again, to be killed there. Returns when that is decided."""
        self.is_killed = True
        self.hurry()
        if self.sandbox is not None:
            await self.sandbox.kill()
        await self.decided.wait()

    def hurry(self) -> None:
        """Ends its wait."""
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class NotNow(Exception):
    """The sandbox runs on, and is neither adopted nor killed. `again`: it is tried again."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.again = again


class Adoption:
    """`gone` removes what is left of a sandbox that was not adopted, and has been killed. `thaws`: see `Machinery`."""

    def __init__(
        self,
        settings: Settings,
        containers: Containers,
        pool: Pool,
        running: dict[str, LocalSandbox],
        tasks: Tasks,
        gone: Callable[[Found], Awaitable[None]],
        thaws: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._pool = pool
        self._running = running
        self._tasks = tasks
        self._gone = gone
        self._thaws = thaws
        self._current: Current | None = None
        self.seconds = 0.0  # that a guest may take; one that takes longer is killed
        self._waiting: dict[str, Found] = {}
        self._under_way: dict[str, UnderWay] = {}
        self._again: set[str] = set()  # of those that wait
        self._closed = asyncio.Event()
        self.parked = asyncio.Event()  # the parked ones have had their turn

    def find(self, record: Record, session: Session | None) -> bool:
        """Notes a sandbox that an earlier server left. False when it does not run."""
        runs = self._containers.runs(record.sandbox)
        if runs:
            self._waiting[record.sandbox] = Found(record, session)
        return runs

    def look_with(self, current: Current) -> None:
        """Before a sandbox thaws, `current` says what the session with this id is now: None where this host does not
        have it any more. It raises Unavailable where the host may not act."""
        self._current = current

    def __contains__(self, sandbox_id: str) -> bool:
        """Whether it runs and is not adopted yet."""
        return sandbox_id in self._waiting or sandbox_id in self._under_way

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def found(self) -> Sequence[Found]:
        """Those that run and are not adopted yet."""
        under_way = [each.found for each in self._under_way.values() if not each.decided.is_set()]
        return [*self._waiting.values(), *under_way]

    async def looked_up(self, sandbox_id: str) -> LocalSandbox | None:
        """The sandbox as soon as its adoption is under way, for what needs no guest. None if it is none of them, or
        cannot be adopted now."""
        if under_way := self._begun(sandbox_id):
            await under_way.looked_up.wait()
            return None if under_way.decided.is_set() else under_way.sandbox
        return None

    async def done(self, sandbox_id: str) -> None:
        """Returns when it is adopted or gone, or at once if it does not wait. Goes on when the caller leaves.

        It still waits afterwards if it can be neither now: the host is fenced, or lost the session, or is being closed.
        """
        if under_way := self._begun(sandbox_id):
            await asyncio.wait({under_way.outcome})

    async def kill(self, sandbox_id: str) -> None:
        """Kills it if it is not adopted yet, and waits for no guest. Returns when it is no longer about to be adopted.

        Who calls this for a session removes what is left of the sandbox, as of one that was adopted.
        """
        while (under_way := self._under_way.get(sandbox_id)) and not under_way.decided.is_set():
            await under_way.kill()
        if found := self._waiting.get(sandbox_id):
            sandbox = self._containers.left(found.record)
            del self._waiting[sandbox_id]  # not if it could not be looked up
            self._again.discard(sandbox_id)
            if sandbox is not None:
                await sandbox.kill()

    async def urgent(self) -> None:
        """Adopts or kills what cannot wait."""
        await self._turns([name for name, found in self._waiting.items() if not found.can_wait])
        await self._ended()
        if not any(found.is_parked for found in self._waiting.values()):
            self.parked.set()

    async def all(self) -> None:
        """Adopts what waits, parked ones first. Tries those again that were fenced, until `close`."""
        try:
            await self._turns([name for name, found in self._waiting.items() if found.is_parked])
        finally:
            self.parked.set()
        await self._turns(list(self._waiting))
        await self._ended()
        while self._again and not await self._is_closed_within(AGAIN_SECONDS):
            await self._turns(list(self._again))
            await self._ended()

    def close(self) -> None:
        """Nothing more is begun, and no guest is waited for. Those that are not adopted go on running."""
        self._closed.set()
        for under_way in self._under_way.values():
            if under_way.sandbox is not None and under_way.limit is not None:
                under_way.sandbox.give_up()
            under_way.hurry()

    async def _is_closed_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        return self._closed.is_set()

    async def _turns(self, names: Iterable[str]) -> None:
        """Returns when each has had its turn. A slow one is still under way then."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with places:
                if under_way := self._begun(name):
                    await asyncio.wait({under_way.outcome}, timeout=TURN_SECONDS)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    async def _ended(self) -> None:
        """Returns when nothing of what is under way now is so any more."""
        if outcomes := {each.outcome for each in self._under_way.values()}:
            await asyncio.wait(outcomes)

    def _begun(self, sandbox_id: str) -> UnderWay | None:
        """The adoption that is under way, from now on if it can begin."""
        if not self._closed.is_set() and (found := self._waiting.pop(sandbox_id, None)):
            self._again.discard(sandbox_id)
            under_way = self._under_way[sandbox_id] = UnderWay(found)
            adopting = self._tasks.finish(self._adopt(under_way), f"adopt {sandbox_id}")
            under_way.outcome = asyncio.ensure_future(adopting)
            under_way.outcome.add_done_callback(partial(_log_failure, sandbox_id))
        return self._under_way.get(sandbox_id)

    async def _adopt(self, under_way: UnderWay) -> None:
        """Adopts the sandbox if it is wanted; otherwise kills it and removes what is left."""
        found = under_way.found
        name = found.record.sandbox
        try:
            if not await self._tried(under_way):
                under_way.decided.set()
                if found.session is None or not under_way.is_killed:  # see `kill`
                    await self._gone(found)
        except NotNow as not_now:
            self._waiting[name] = found
            if not_now.again:
                self._again.add(name)
        finally:
            del self._under_way[name]
            under_way.decided.set()
            under_way.looked_up.set()

    async def _tried(self, under_way: UnderWay) -> bool:
        """Whether it is adopted. Otherwise it was killed. Raises NotNow."""
        found = under_way.found
        session = await self._session_now(under_way)
        await self._restrict(found, session)
        if under_way.is_killed:
            raise NotNow(again=True)
        thaws = self._thaws()
        try:
            sandbox = under_way.sandbox = self._containers.left(found.record)
        except OSError as failed:  # too many open files, or no memory: it runs on
            log.warning("sandbox_not_adopted", sandbox=found.record.sandbox, reason=str(failed))
            raise NotNow(again=True) from failed
        under_way.looked_up.set()
        if sandbox is None:
            return False
        try:
            if await self._adopted(under_way, sandbox, session):
                return True
        except Exception as failed:  # the boundary of a sandbox: one that fails must not keep others from being adopted
            is_silent = isinstance(failed, (SandboxGone, TimeoutError))
            if self._closed.is_set() or (is_silent and sandbox.is_alive() and sandbox.was_fenced(thaws)):
                is_suspended = session is not None and session.state is State.IDLE
                if sandbox.give_up(frozen=is_suspended):
                    raise NotNow(again=True) from failed
            if not under_way.is_killed:
                told = {"reason": str(failed) or repr(failed)} if is_silent else {"exc_info": failed}
                (log.warning if is_silent else log.error)("sandbox_not_adopted", sandbox=sandbox.id, **told)
        await sandbox.kill()
        return False

    async def _session_now(self, under_way: UnderWay) -> Session | None:
        """Raises NotNow where this host has it no more, or has had it again since, with other files: then the sandbox
        stays frozen until `lifecycle.aside` or `lifecycle.misplaced` ends it. Raises it on `close` and `kill`, too."""
        found = under_way.found
        if found.session is None or self._current is None:
            return found.session
        try:
            async with self._waits(under_way):
                session = await self._current(found.session.id)
        except (Unavailable, TimeoutError):
            raise NotNow(again=True) from None
        sandbox, volume = found.record.sandbox, found.session.volume
        if session is None or (session.sandbox, session.volume) != (sandbox, volume):
            log.warning("sandbox_of_another_host", sandbox=sandbox, session=found.session.id)
            raise NotNow(again=False)
        return session

    async def _restrict(self, found: Found, session: Session | None) -> None:
        """Puts the network rules of the session in force if they have changed since the start. Raises NotNow."""
        if found.session is None or session is None or session.network == found.session.network:
            return
        try:
            await asyncio.to_thread(self._containers.restrict, found.record, session.network)
        except HostCommandFailed as failed:
            log.warning("sandbox_not_adopted", sandbox=found.record.sandbox, reason=str(failed))
            raise NotNow(again=True) from failed

    async def _adopted(self, under_way: UnderWay, sandbox: LocalSandbox, session: Session | None) -> bool:
        if under_way.found.record.generation != records.GENERATION:
            return await self._end_in_order(under_way, sandbox, session)
        if session is None:
            return await self._adopt_parked(under_way, sandbox)
        return await self._adopt_own(under_way, sandbox, session)

    @asynccontextmanager
    async def _let_go(self, under_way: UnderWay, sandbox: LocalSandbox) -> AsyncIterator[None]:
        """Within the block, it is not frozen, and its guest has to answer. Raises what `_waits` raises."""
        async with self._waits(under_way, self.seconds):
            sandbox.let_go()  # no spare: it may be frozen again, and a parked one must not count its memory
            yield

    @asynccontextmanager
    async def _waits(self, under_way: UnderWay, seconds: float | None = None) -> AsyncIterator[None]:
        """Raises TimeoutError when the seconds are over, and on `close` and `kill`."""
        async with asyncio.timeout(seconds) as under_way.limit:
            try:
                self._check_wanted(under_way)
                yield
                self._check_wanted(under_way)
            finally:
                under_way.limit = None

    def _check_wanted(self, under_way: UnderWay) -> None:
        if self._closed.is_set() or under_way.is_killed:
            raise TimeoutError

    async def _end_in_order(self, under_way: UnderWay, sandbox: LocalSandbox, session: Session | None) -> bool:
        """Ends a sandbox of an earlier version, whose guest need not understand this one.

        A session's processes may first write what they hold.
        """
        log.info("sandbox_of_an_earlier_version", sandbox=sandbox.id, session=sandbox.record.session)
        if session is not None:
            async with self._let_go(under_way, sandbox):
                await sandbox.recall()
                await sandbox.quiesce()
        return False

    async def _adopt_parked(self, under_way: UnderWay, sandbox: LocalSandbox) -> bool:
        """Adopts a sandbox that nobody has claimed, if its image is current and the pool has a place for it."""
        unclaimed = sandbox.record.session is None and sandbox.record.image == self._settings.image.id
        if not unclaimed or self._pool.is_full:
            return False
        async with self._let_go(under_way, sandbox):
            await sandbox.take_over()
            await sandbox.park()
        # a crash between claiming and storing may have changed them
        await asyncio.to_thread(self._containers.limit, sandbox.record, self._settings.parked_limits)
        if self._pool.is_full or under_way.is_killed:  # others were quicker
            return False
        self._pool.add(sandbox)
        return True

    async def _adopt_own(self, under_way: UnderWay, sandbox: LocalSandbox, session: Session) -> bool:
        """Adopts the sandbox of a session."""
        if session.state is State.DEEP_SLEEP:  # the server was killed between storing that and stopping it
            return False
        async with self._let_go(under_way, sandbox):
            await sandbox.take_over()
        await asyncio.to_thread(self._containers.limit, sandbox.record, session.limits)
        if session.state is State.IDLE and not under_way.is_killed:
            await sandbox.freeze()
        if under_way.is_killed:
            return False
        self._running[sandbox.id] = sandbox
        return True


def _log_failure(sandbox_id: str, outcome: asyncio.Future[None]) -> None:
    if not outcome.cancelled() and (failure := outcome.exception()) is not None:
        log.error("sandbox_not_cleared", sandbox=sandbox_id, exc_info=failure)
