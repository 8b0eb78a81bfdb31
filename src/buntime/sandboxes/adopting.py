"""Taking over the sandboxes that an earlier server has left running.

A start only looks for them. One is taken over when a request asks for it, or else in its turn behind: a host with
thousands of them answers at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from buntime.daemon.tasks import Tasks
from buntime.ports import SandboxGone
from buntime.sandboxes import record as records
from buntime.sandboxes.containers import Containers, Settings
from buntime.sandboxes.pool import Pool
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import Session, State

log = structlog.get_logger()

AT_ONCE, TURN_SECONDS = 8, 2.0  # a slower adoption makes way for the next one and goes on beside it


@dataclass(frozen=True, slots=True)
class Found:
    record: Record
    session: Session | None  # as the store had it at the start; nothing changes it before the sandbox is adopted
    init: int  # a pidfd

    @property
    def is_parked(self) -> bool:
        return self.record.session is None

    @property
    def can_wait(self) -> bool:
        """Not if it uses the volume of a session that is asleep, or is served by another sandbox."""
        return self.is_parked if self.session is None else self.session.state is not State.DEEP_SLEEP


@dataclass(frozen=True, slots=True)
class UnderWay:
    outcome: asyncio.Future[None]
    decided: asyncio.Event  # it is adopted or killed; what is left of it may still have to be removed


class Adoption:
    """`gone` removes what is left of a sandbox that was not adopted, and has been killed."""

    def __init__(
        self,
        settings: Settings,
        containers: Containers,
        pool: Pool,
        running: dict[str, LocalSandbox],
        tasks: Tasks,
        gone: Callable[[Found], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._pool = pool
        self._running = running
        self._tasks = tasks
        self._gone = gone
        self.seconds = 0.0  # that a guest may take; one that takes longer is killed
        self._waiting: dict[str, Found] = {}
        self._under_way: dict[str, UnderWay] = {}
        self._is_closed = False
        self.parked = asyncio.Event()  # no parked one waits any more

    def find(self, record: Record, session: Session | None) -> bool:
        """Notes a sandbox that an earlier server left. False when it does not run."""
        init = self._containers.running_init(record.sandbox)
        if init is not None:
            self._waiting[record.sandbox] = Found(record, session, init)
        return init is not None

    def __contains__(self, sandbox_id: str) -> bool:
        """Whether it runs and is not adopted yet."""
        return sandbox_id in self._waiting or sandbox_id in self._under_way

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def waiting(self) -> Sequence[Found]:
        return list(self._waiting.values())

    async def done(self, sandbox_id: str) -> None:
        """Returns when it is adopted or gone, or at once if it is not waiting. Goes on when the caller leaves."""
        if found := self._waiting.pop(sandbox_id, None):
            decided = asyncio.Event()
            adopting = self._tasks.finish(self._adopt(found, decided), f"adopt {sandbox_id}")
            under_way = UnderWay(asyncio.ensure_future(adopting), decided)
            self._under_way[sandbox_id] = under_way
            under_way.outcome.add_done_callback(lambda _: self._under_way.pop(sandbox_id))
        if running := self._under_way.get(sandbox_id):
            await asyncio.wait({running.outcome})

    async def kill(self, sandbox_id: str) -> None:
        """Kills it if it waits. Returns when it is no longer about to be adopted."""
        if found := self._waiting.pop(sandbox_id, None):
            await self._containers.taken_up(found.record, found.init).kill()
        elif under_way := self._under_way.get(sandbox_id):
            await under_way.decided.wait()

    async def urgent(self) -> None:
        """Adopts or kills what cannot wait."""
        await self._each([name for name, found in self._waiting.items() if not found.can_wait])
        if not any(found.is_parked for found in self._waiting.values()):
            self.parked.set()

    async def all(self) -> None:
        """Adopts what waits, parked ones first."""
        try:
            await self._each([name for name, found in self._waiting.items() if found.is_parked])
        finally:
            self.parked.set()
        await self._each(list(self._waiting))

    def close(self) -> None:
        """Nothing more is begun. Those that wait go on running."""
        self._is_closed = True

    async def _each(self, names: Iterable[str]) -> None:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with places:
                if not self._is_closed:
                    await asyncio.wait({group.create_task(self.done(name))}, timeout=TURN_SECONDS)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    async def _adopt(self, found: Found, decided: asyncio.Event) -> None:
        """Adopts the sandbox if it is wanted; otherwise kills it and removes what is left."""
        try:
            adopted = await self._tried(found)
        finally:
            decided.set()
        if not adopted:
            await self._gone(found)

    async def _tried(self, found: Found) -> bool:
        record, session = found.record, found.session
        sandbox = self._containers.taken_up(record, found.init)
        try:
            sandbox.let_go()  # no spare: it may be frozen again, and a parked one must not count its memory
            if await self._adopted(sandbox, record, session):
                return True
        except (SandboxGone, TimeoutError) as gone:
            log.warning("sandbox_not_adopted", sandbox=sandbox.id, reason=str(gone) or repr(gone))
        except Exception:  # the boundary of a sandbox: one that fails must not keep the others from being adopted
            log.exception("sandbox_not_adopted", sandbox=sandbox.id)
        await sandbox.kill()
        return False

    async def _adopted(self, sandbox: LocalSandbox, record: Record, session: Session | None) -> bool:
        if record.generation != records.GENERATION:
            return await self._end_in_order(sandbox, session)
        if session is None:
            return await self._adopt_parked(sandbox)
        return await self._adopt_own(sandbox, session)

    async def _end_in_order(self, sandbox: LocalSandbox, session: Session | None) -> bool:
        """Ends a sandbox of an earlier version, whose guest need not understand this one.

        A session's processes may first write what they hold.
        """
        log.info("sandbox_of_an_earlier_version", sandbox=sandbox.id, session=sandbox.record.session)
        if session is not None:
            async with asyncio.timeout(self.seconds):
                await sandbox.recall()
                await sandbox.quiesce()
        return False

    async def _adopt_parked(self, sandbox: LocalSandbox) -> bool:
        """Adopts a sandbox that nobody has claimed, if its image is current and the pool has a place for it."""
        unclaimed = sandbox.record.session is None and sandbox.record.image == self._settings.image.id
        if not unclaimed or self._pool.is_full:
            return False
        async with asyncio.timeout(self.seconds):
            await sandbox.take_over()
            await sandbox.park()
        # a crash between claiming and storing may have changed them
        await asyncio.to_thread(self._containers.limit, sandbox.record, self._settings.parked_limits)
        if self._pool.is_full:  # others were quicker
            return False
        self._pool.add(sandbox)
        return True

    async def _adopt_own(self, sandbox: LocalSandbox, session: Session) -> bool:
        """Adopts the sandbox of a session."""
        if session.state is State.DEEP_SLEEP:  # the server was killed between storing that and stopping it
            return False
        async with asyncio.timeout(self.seconds):
            await sandbox.take_over()
        await asyncio.to_thread(self._containers.limit, sandbox.record, session.limits)
        if session.state is State.IDLE:
            await sandbox.freeze()
        self._running[sandbox.id] = sandbox
        return True
