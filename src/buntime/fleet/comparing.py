"""What a host finds out about what it holds: after it has joined, before it acts, and then again and again.

Its threads are its own. Those of the event loop's default executor may all wait for processes that are frozen, and on
cgroup v1 for as long as these are. They thaw only after a comparison.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog

from buntime.fleet import ownership
from buntime.fleet.members import Membership
from buntime.fleet.ownership import Standing, standing_of
from buntime.fleet.rows import Rows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeldSandbox:
    session: str
    volume: str  # another one with each epoch of the session


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A sandbox that does not belong on this host."""

    held: HeldSandbox
    standing: Standing


class Held(Protocol):
    """The sandboxes of sessions on this host. Blocking."""

    def all(self) -> Mapping[str, HeldSandbox]:
        """By the id of the sandbox."""
        ...

    def keep_frozen(self, sandboxes: Collection[str]) -> None:
        """They stay frozen when all others thaw."""
        ...


class Comparing:
    """`moved`: set after a comparison that found something which this host must give up. `adopts`: see `Rows.adopt`."""

    def __init__(self, rows: Rows, held: Held, moved: asyncio.Event, *, adopts: bool = False) -> None:
        self._rows = rows
        self._held = held
        self._moved = moved
        self._adopts = adopts
        self._is_first = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="comparison")

    async def compare(self, me: Membership) -> None:
        """Keeps all sandboxes frozen whose sessions moved. Raises Fenced and Unavailable."""
        if self._is_first and self._adopts:
            await self._rows.adopt(me)
        held = await self._in_thread(self._held.all)
        rows = await self._rows.report(me, {each.session for each in held.values()})
        # the store gives a session another volume with each epoch, so a volume tells the epoch of what is on the disk
        epochs = {(row.session, row.volume): row.epoch for row in rows}
        has = {each.session: 0 for each in held.values()}
        for each in held.values():  # after a restore, a sandbox on the files from before may still be there
            has[each.session] = max(has[each.session], epochs.get(_files_of(each), 0))
        found = ownership.compare(me.host, has, rows)
        # a server that goes on may be making a session that no row names yet. At a start, nobody does
        lost = found.moved | (found.gone if self._is_first else frozenset())
        others = {each for each in held.values() if each.session in found.keep and not epochs.get(_files_of(each))}
        given_up = [sandbox for sandbox, each in held.items() if each.session in lost or each in others]
        await self._in_thread(lambda: self._held.keep_frozen(given_up))
        self._is_first = False
        log.info("sessions_compared", kept=len(found.keep), moved=len(found.moved), gone=len(found.gone))
        if found.moved:
            self._moved.set()

    async def misplaced(self, me: Membership) -> Mapping[str, Misplaced]:
        """All sandboxes here that the rows do not give to this host, by id. Asks the database once.

        A sandbox may look misplaced for a moment: what makes or moves a session holds the session's lock meanwhile. So
        ask again with that lock. Raises Fenced and Unavailable.
        """
        held = await self._in_thread(self._held.all)
        rows = await self._rows.report(me, {each.session for each in held.values()}) if held else ()
        found = {row.session: row for row in rows}
        misplaced = {
            sandbox: Misplaced(each, standing_of(me.host, each.volume, found.get(each.session)))
            for sandbox, each in held.items()
        }
        return {sandbox: one for sandbox, one in misplaced.items() if one.standing is not Standing.OURS}

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _files_of(held: HeldSandbox) -> tuple[str, str]:
    return held.session, held.volume
