"""Ends sandboxes on this host whose sessions are not here, as the rows say.

A host compares when it joins. While it goes on, this finds what a mistake of ours or an operator's hand has left.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from buntime.daemon.boundary import failing_alone
from buntime.fleet.comparing import Comparing, Misplaced
from buntime.fleet.members import Fenced, Membership
from buntime.fleet.ownership import Standing
from buntime.lifecycle.holds import Holds
from buntime.plan import Limits
from buntime.ports import Sandboxes
from buntime.session import Session

log = structlog.get_logger()

SECONDS = 30.0  # between two comparisons


class MisplacedSandboxes:
    """`me`: as which member this host asks; raises Fenced where it is none. `moved`: see `Aside`."""

    def __init__(
        self,
        comparing: Comparing,
        sandboxes: Sandboxes,
        holds: Holds,
        me: Callable[[], Membership],
        moved: asyncio.Event,
    ) -> None:
        self._comparing = comparing
        self._sandboxes = sandboxes
        self._holds = holds
        self._me = me
        self._moved = moved
        self._before: frozenset[tuple[str, Misplaced]] = frozenset()  # what the comparison before has found
        self.ended = 0  # since the start

    async def keep(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(SECONDS)
            with failing_alone("sandboxes_not_compared"), suppress(Fenced):
                await self.look()

    async def look(self) -> None:
        """Once. Ends a sandbox whose session another host has.

        One without a row, or on other files, is ended by the second look that finds it: what is left of a restore is
        still being removed, and the commit of a create may be under way. Raises Fenced and Unavailable.
        """
        found = frozenset((await self._comparing.misplaced(self._me())).items())
        for sandbox, one in found:
            if one.standing is Standing.MOVED or (sandbox, one) in self._before:
                await self._end(sandbox, one)
        self._before = found

    async def _end(self, sandbox: str, one: Misplaced) -> None:
        """A session that is being created, restored, woken or moved waits for the next look."""
        lock = self._holds.lock(one.held.session)
        if lock.locked():
            return
        async with lock:
            if (await self._comparing.misplaced(self._me())).get(sandbox) != one:
                return
            log.error("sandbox_misplaced", session=one.held.session, sandbox=sandbox, because=one.standing.value)
            with failing_alone("sandbox_not_ended", session=one.held.session, sandbox=sandbox):
                await self._sandboxes.stop(_as_it_was(sandbox, one))
                self.ended += 1
        if one.standing is Standing.MOVED:
            self._moved.set()


def _as_it_was(sandbox: str, one: Misplaced) -> Session:
    """As much of the session as tells the host what to stop."""
    return Session(
        id=one.held.session,
        account="",
        created_at=0,
        expires_at=None,
        last_active=0,
        limits=Limits(memory=0, cpu=0, timeout=0, disk=0),
        sandbox=sandbox,
        volume=one.held.volume,
        image="",
    )
