"""Requests per minute, in fixed windows: how many a key and its account may still send."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

WINDOW = 60  # seconds
KEYS_WORTH = 5  # an account's requests per minute, in those of one key: accounts make keys themselves
MOST_COUNTED = 100_000  # names in one window; all others share one count


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left for a caller in this window. `reset` is in Unix seconds, `seconds` those until then."""

    limit: int
    remaining: int
    reset: int
    seconds: float
    allowed: bool


type Standings = tuple[Standing, Standing]  # the key's own, and the one that decides: the key's or its account's


class Rates(Protocol):
    """Counts requests against a key and its account. Refused requests do not count."""

    def count(self, account: str, key: str, rate: int) -> Standings | None:
        """Counts one request by what is in memory. None, with nothing counted, where `ask` must.

        `rate`: of one key, in requests per minute. What a key's own limit refuses takes nothing from other keys.
        """
        ...

    async def ask(self, account: str, key: str, rate: int) -> Standings:
        """The same where others must be asked. Raises Unavailable."""
        ...


class Quota:
    """Counts requests by name in the current minute. A new minute drops all counts, so memory stays bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._clock = clock
        self._window = 0
        self._counts: dict[str, int] = {}

    def take(self, name: str, limit: int) -> Standing:
        """Counts one request. Refused requests do not count."""
        now = self._clock()
        window = int(now) // WINDOW
        if window != self._window:
            self._window, self._counts = window, {}
        if name not in self._counts and len(self._counts) >= MOST_COUNTED:
            name = ""
        used = self._counts.get(name, 0)
        allowed = used < limit
        if allowed:
            self._counts[name] = used = used + 1
        reset = (window + 1) * WINDOW
        return Standing(limit, max(limit - used, 0), reset, reset - now, allowed)


class HostRates:
    """Implements Rates for a host that is alone: it knows all requests."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._keys, self._accounts = Quota(clock), Quota(clock)

    def count(self, account: str, key: str, rate: int) -> Standings:
        own = self._keys.take(key, rate)
        return own, self._accounts.take(account, KEYS_WORTH * rate) if own.allowed else own

    async def ask(self, account: str, key: str, rate: int) -> Standings:
        return self.count(account, key, rate)
