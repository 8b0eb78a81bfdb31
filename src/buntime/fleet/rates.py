"""Counts the requests of a fleet's keys and accounts, on every host, from shares that the database hands out.

Keys with many requests a minute are counted by every host that gets them. Keys with few are counted by one host, the
account's home, because a tenth of few is nothing to divide. The other hosts ask it. Where it does not answer, a host
takes single requests from the database itself.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from buntime.daemon.batches import Batches
from buntime.errors import Unavailable
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.homes import Homes
from buntime.fleet.shares import Granted, Shares, Unused, Wanted, share_of
from buntime.ports import Peer
from buntime.rates import KEYS_WORTH, Standings

log = structlog.get_logger(__name__)

FEW = 1000  # requests a minute of one key: below, one host counts it
AWAY_SECONDS = 2.0  # for which a home that did not answer is not asked
TICK_SECONDS = 1.0


class Pot(Protocol):
    """The shares of all minutes, in the database. One suite runs against the fake and PostgreSQL."""

    async def take_shares(self, wanted: Sequence[Wanted]) -> Mapping[str, Granted]:
        """Hands out requests of the current minute, of each name as many as are left, up to its number. Together never
        more than its limit. Names must differ. A share whose answer is lost is lost for its minute. Raises
        Unavailable."""
        ...

    async def give_back(self, unused: Sequence[Unused]) -> None:
        """Takes shares back, if their minute is still the current one. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    account: str
    key: str
    rate: int


class PeerAway(Exception):
    """The other host does not answer, or not so."""


class Home(Protocol):
    """How this host asks another one."""

    async def count(self, peer: Peer, asked: Sequence[Asked]) -> Sequence[Standings]:
        """Counts each on that host. Raises PeerAway; then some may have been counted."""
        ...


class FleetRates:
    """Implements `rates.Rates`. `clock`: seconds, which nobody sets."""

    def __init__(self, pot: Pot, homes: Homes, home: Home, clock: Callable[[], float] = boot_seconds) -> None:
        self._pot, self._homes, self._home, self._clock = pot, homes, home, clock
        self._shares = Shares()
        self._ours: dict[str, str] = {}  # names that this host counts as their home → accounts
        self._refills = Batches(self._refill, "shares of rates")
        self._asking: dict[Peer, Batches[Asked, Standings]] = {}
        self._away: dict[Peer, float] = {}  # until when it is not asked
        self.refills = self.asked = 0  # questions to the database and to other hosts, since the start

    def count(self, account: str, key: str, rate: int) -> Standings | None:
        if rate < FEW and self._elsewhere(account) is not None:
            return None
        return self._count(Asked(account, key, rate))

    async def ask(self, account: str, key: str, rate: int) -> Standings:
        asked = Asked(account, key, rate)
        peer = self._elsewhere(account) if rate < FEW else None
        if peer is not None:
            with suppress(PeerAway):
                return await self._asking_of(peer).ask(asked)
        return await self._count_here(asked)

    async def count_here(self, asked: Sequence[Asked]) -> Sequence[Standings]:
        """Counts requests that other hosts got. Raises Unavailable; then some may have been counted."""
        return await asyncio.gather(*(self._count_here(each) for each in asked))

    async def keep(self) -> None:
        """For ever: gives back what is not used here."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.give_back()

    async def give_back(self) -> None:
        """Once. What cannot be given back is lost until the minute ends."""
        unused = self._shares.take_idle(self._clock(), self._stays)
        self._ours = {name: account for name, account in self._ours.items() if name in self._shares}
        if unused:
            with suppress(Unavailable):
                await self._pot.give_back(unused)

    def _stays(self, name: str) -> bool:
        """Whether this host is the only one that counts the name."""
        account = self._ours.get(name)
        return account is not None and self._homes.of(account) is None

    def _count(self, asked: Asked) -> Standings | None:
        now = self._clock()
        own = self._shares.take(asked.key, asked.rate, now)
        if own is None or not own.allowed:
            return None if own is None else (own, own)
        standing = self._shares.take(asked.account, KEYS_WORTH * asked.rate, now)
        if standing is None or not standing.allowed:
            self._shares.put_back(asked.key)
        return None if standing is None else (own, standing)

    async def _count_here(self, asked: Asked) -> Standings:
        while (standings := self._count(asked)) is None:
            limits = {asked.key: asked.rate, asked.account: KEYS_WORTH * asked.rate}
            lacking = [name for name in limits if self._shares.lacks(name, self._clock())]
            if self._is_home_of(asked):
                self._ours |= dict.fromkeys(lacking, asked.account)
            asking = [
                self._refills.ask(Wanted(name, limits[name], self._share(limits[name], asked))) for name in lacking
            ]
            try:
                await asyncio.gather(*asking)
            except Unavailable as failure:  # which all who wait share
                raise Unavailable(failure.message, 1) from None
        return standings

    def _share(self, limit: int, asked: Asked) -> int:
        if asked.rate >= FEW:
            return share_of(limit, self._homes.number)
        return share_of(limit, 1) if self._is_home_of(asked) else 1

    def _is_home_of(self, asked: Asked) -> bool:
        return asked.rate < FEW and self._homes.of(asked.account) is None

    def _elsewhere(self, account: str) -> Peer | None:
        """The other host that counts the account's small keys, if it answers."""
        peer = self._homes.of(account)
        return peer if peer is not None and self._answers(peer) else None

    def _answers(self, peer: Peer) -> bool:
        return self._clock() >= self._away.get(peer, 0.0)

    def _asking_of(self, peer: Peer) -> Batches[Asked, Standings]:
        if peer not in self._asking:

            async def ask(asked: Sequence[Asked]) -> Sequence[Standings]:
                self.asked += 1
                try:
                    return await self._home.count(peer, asked)
                except PeerAway as failure:
                    if self._answers(peer):
                        log.warning("home_of_keys_away", host=peer.id, reason=str(failure))
                    self._away[peer] = self._clock() + AWAY_SECONDS
                    raise

            self._asking[peer] = Batches(ask, f"questions to {peer.id}")
        return self._asking[peer]

    async def _refill(self, wanted: Sequence[Wanted]) -> Sequence[None]:
        """Asks for a share of each name, or for as many requests as wait if they are more."""
        waiting = Counter(each.name for each in wanted)
        merged = {each.name: replace(each, number=max(each.number, waiting[each.name])) for each in wanted}
        self.refills += 1
        sent = self._clock()
        granted = await self._pot.take_shares(list(merged.values()))
        for name, got in granted.items():
            self._shares.grant(merged[name], got, sent, self._clock())
        return [None] * len(wanted)
