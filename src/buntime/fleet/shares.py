"""What this host may still let through of each key's and account's minute. Pure.

The database hands out a minute's requests in shares, and never more than the plan has. A host uses its shares without
asking. What it does not use comes back, at the latest with the minute's end, of a lost host too. So hosts together
never let more through than the plan allows, and what is unused elsewhere is all that a refused client can lack.

With shares of a tenth of the limit divided by the hosts, that is less than a tenth of the limit. Each host that has an
unused rest of a share has used at least one of it, and the one that refuses has no rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime.rates import WINDOW, Standing

UNUSED_PART = 10  # of the limit, one part may be unused on other hosts
EMPTY_SECONDS = 1.0  # for which "nothing is left" counts, before the database is asked again
STEADY = 0.999  # of a second of the database, at most one of this host: a minute ends early rather than late
IDLE_SECONDS = 15.0  # without a request, after which a share goes back


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requests that a host would like to let through."""

    name: str  # a key's or an account's id
    limit: int  # by the plan
    number: int


@dataclass(frozen=True, slots=True)
class Granted:
    """What the database has handed out."""

    minute: int  # of the Unix time of the database's clock
    number: int  # now
    every: int  # in this minute, to all hosts
    left: float  # seconds of the minute


@dataclass(frozen=True, slots=True)
class Unused:
    """A share that goes back."""

    name: str
    minute: int
    number: int


@dataclass(slots=True)
class _Share:
    minute: int
    end: float  # by this host's clock, not later than by the database's
    number: int = 0  # unused here
    free: int = 0  # not handed out yet, when the database was last asked
    empty_until: float = 0.0
    used_at: float = 0.0


def share_of(limit: int, hosts: int) -> int:
    """How many requests a host asks for at a time, where so many hosts count this name."""
    return max(1, limit // (UNUSED_PART * max(1, hosts)))


class Shares:
    """All times are this host's, in seconds of a clock that nobody sets."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._shares

    def take(self, name: str, limit: int, now: float) -> Standing | None:
        """Counts one request. None, with nothing counted, where the database must be asked."""
        share = self._shares.get(name)
        if share is None or now >= share.end:
            return None
        if share.number > 0:
            share.number -= 1
            share.used_at = now
            return _standing(share, limit, now, allowed=True)
        return _standing(share, limit, now, allowed=False) if now < share.empty_until else None

    def lacks(self, name: str, now: float) -> bool:
        """Whether `take` would return None."""
        share = self._shares.get(name)
        return share is None or now >= share.end or (share.number <= 0 and now >= share.empty_until)

    def put_back(self, name: str) -> None:
        """A request that was counted is refused after all."""
        self._shares[name].number += 1

    def grant(self, wanted: Wanted, granted: Granted, sent: float, now: float) -> None:
        """`sent`: when the database was asked. The minute's end counts from then: it may be too early, never late."""
        share = self._shares.get(wanted.name)
        if share is None or share.minute != granted.minute or now >= share.end:
            share = self._shares[wanted.name] = _Share(granted.minute, 0.0)
        share.end = sent + granted.left * STEADY
        share.number += granted.number
        share.free = max(0, wanted.limit - granted.every)
        share.used_at = now
        share.empty_until = now + EMPTY_SECONDS if granted.number == 0 else 0.0

    def take_idle(self, now: float, keeps: Callable[[str], bool]) -> Sequence[Unused]:
        """Takes away what was not used for some seconds, and forgets what is over. `keeps`: whether a name's share
        stays in any case."""
        idle = []
        for name, share in list(self._shares.items()):
            if now >= share.end:
                del self._shares[name]
            elif share.number > 0 and now - share.used_at >= IDLE_SECONDS and not keeps(name):
                idle.append(Unused(name, share.minute, share.number))
                del self._shares[name]
        return idle


def _standing(share: _Share, limit: int, now: float, *, allowed: bool) -> Standing:
    remaining = share.number + share.free if allowed else 0
    return Standing(limit, remaining, (share.minute + 1) * WINDOW, share.end - now, allowed)
