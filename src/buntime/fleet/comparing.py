"""What a host that has joined finds out about what it holds, before it acts."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from buntime.fleet import ownership
from buntime.fleet.members import Membership
from buntime.fleet.rows import Rows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeldSandbox:
    session: str
    volume: str  # another one with each epoch of the session


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

    async def compare(self, me: Membership) -> None:
        """Keeps all sandboxes frozen whose sessions moved. Raises Fenced and Unavailable."""
        if self._is_first and self._adopts:
            await self._rows.adopt(me)
        held = await asyncio.to_thread(self._held.all)
        rows = await self._rows.report(me, {each.session for each in held.values()})
        epochs = {row.session: (row.volume, row.epoch) for row in rows}
        # the store gives a session another volume with each epoch, so a volume tells the epoch of what is on the disk
        has = {
            each.session: epochs[each.session][1] if epochs.get(each.session, ("", 0))[0] == each.volume else 0
            for each in held.values()
        }
        found = ownership.compare(me.host, has, rows)
        # a server that goes on may be making a session that no row names yet. At a start, nobody does
        lost = found.moved | (found.gone if self._is_first else frozenset())
        given_up = [sandbox for sandbox, each in held.items() if each.session in lost]
        await asyncio.to_thread(self._held.keep_frozen, given_up)
        self._is_first = False
        log.info("sessions_compared", kept=len(found.keep), moved=len(found.moved), gone=len(found.gone))
        if found.moved:
            self._moved.set()
