"""Limits the open HTTP conversations of older clients for each key. The oldest idle one ends for a new one."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MOST_OPEN = 100  # for one key
IDLE_SECONDS = 3600.0  # after which a conversation ends


class Full(Exception):
    """All conversations that the key may have are in use."""


@dataclass(slots=True)
class _Open:
    """`calls`: the calls under way, including those that wait for events."""

    owner: str
    used: float
    calls: int = 0


class OpenConversations:
    """A conversation has a name, its `Mcp-Session-Id`, and an owner, its hashed key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, _Open] = OrderedDict()  # the most recently used one is the last
        self._opening: Counter[str] = Counter()  # by owner

    def reserve(self, owner: str) -> str | None:
        """Reserves a place for a new conversation. Returns the name of one that must end for it. Raises Full."""
        self._forget_idle()
        mine = [(name, one) for name, one in self._open.items() if one.owner == owner]
        ends = None
        if len(mine) + self._opening[owner] >= MOST_OPEN:
            ends = next((name for name, one in mine if not one.calls), None)
            if ends is None:
                raise Full
            del self._open[ends]
        self._opening[owner] += 1
        return ends

    def settle(self, owner: str, name: str | None) -> None:
        """Ends a reservation. `name` is None if the conversation was not opened."""
        self._opening -= Counter({owner: 1})  # drops zero counts
        if name is not None:
            self._open[name] = _Open(owner, self._clock())

    @contextmanager
    def call(self, owner: str, name: str) -> Iterator[None]:
        """The conversation is in use within the block."""
        one = self._open.get(name)
        if one is None or one.owner != owner:
            yield
            return
        self._open.move_to_end(name)
        one.calls += 1
        try:
            yield
        finally:
            one.calls -= 1
            one.used = self._clock()

    def forget(self, owner: str, name: str) -> None:
        """Forgets a conversation that has ended."""
        if name in self._open and self._open[name].owner == owner:
            del self._open[name]

    def _forget_idle(self) -> None:
        now = self._clock()
        for name, one in list(self._open.items()):
            if not one.calls and now - one.used > IDLE_SECONDS:
                del self._open[name]
