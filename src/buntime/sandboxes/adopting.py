"""Taking over a sandbox that an earlier server has left running."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from buntime.ports import SandboxGone
from buntime.sandboxes import record as records
from buntime.sandboxes.containers import Containers, Settings
from buntime.sandboxes.pool import Pool
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import Session, State

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Adoption:
    """`seconds`: how long a guest may take; one that takes longer is killed. `stop`: as `Sandboxes.stop`."""

    settings: Settings
    containers: Containers
    pool: Pool
    running: dict[str, LocalSandbox]
    stop: Callable[[Session], Awaitable[None]]
    seconds: float

    async def adopt(self, record: Record, session: Session | None) -> None:
        """Adopts the sandbox if it runs and is wanted; otherwise kills it."""
        init = self.containers.running_init(record.sandbox)
        if init is None:
            return
        sandbox = self.containers.taken_up(record, init)
        try:
            await sandbox.thaw()
            adopted = await self._adopted(sandbox, record, session)
        except (SandboxGone, TimeoutError) as gone:
            log.warning("sandbox_not_adopted", sandbox=sandbox.id, reason=str(gone) or repr(gone))
            adopted = False
        except Exception:  # the boundary of a sandbox: one that fails must not keep the server from starting
            log.exception("sandbox_not_adopted", sandbox=sandbox.id)
            adopted = False
        if not adopted:
            await sandbox.kill()

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
                await sandbox.quiesce()
        return False

    async def _adopt_parked(self, sandbox: LocalSandbox) -> bool:
        """Adopts a sandbox that nobody has claimed, if its image is current and the pool has a place for it."""
        unclaimed = sandbox.record.session is None and sandbox.record.image == self.settings.image.id
        if not unclaimed or self.pool.is_full:
            return False
        async with asyncio.timeout(self.seconds):
            await sandbox.take_over()
            await sandbox.park()
        # a crash between claiming and storing may have changed them
        await asyncio.to_thread(self.containers.limit, sandbox.record, self.settings.parked_limits)
        if self.pool.is_full:  # others were quicker
            return False
        self.pool.add(sandbox)
        return True

    async def _adopt_own(self, sandbox: LocalSandbox, session: Session) -> bool:
        """Adopts the sandbox of a session."""
        if session.state is State.DEEP_SLEEP:  # the server was killed between storing that and stopping it
            await sandbox.kill()
            await self.stop(session)
            return False
        async with asyncio.timeout(self.seconds):
            await sandbox.take_over()
        await asyncio.to_thread(self.containers.limit, sandbox.record, session.limits)
        if session.state is State.IDLE:
            await sandbox.freeze()
        self.running[sandbox.id] = sandbox
        return True
