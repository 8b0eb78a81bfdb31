"""How many conversations of older clients are open over HTTP, for each key; the oldest idle one gives way."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MOST_OPEN = 100  # of one key
IDLE_SECONDS = 3600.0  # after which one has to begin anew


class Full(Exception):
    """As many conversations of this key as may be are in use."""


@dataclass(slots=True)
class _Open:
    """`calls`: that are not answered yet, also those that wait for news."""

    owner: str
    used: float
    calls: int = 0


class OpenConversations:
    """A conversation has a name, its `Mcp-Session-Id`, and an owner, which stands for its key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, _Open] = OrderedDict()  # the one that was used last is the last
        self._opening: Counter[str] = Counter()  # by owner

    def reserve(self, owner: str) -> str | None:
        """A place for one that is being opened; the name of the conversation that has to end for it. Raises Full."""
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
        """What was being opened is open, or None: it is not."""
        self._opening -= Counter({owner: 1})  # leaves out what is none
        if name is not None:
            self._open[name] = _Open(owner, self._clock())

    @contextmanager
    def call(self, owner: str, name: str) -> Iterator[None]:
        """While it lasts the conversation is in use."""
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
        """It has ended."""
        if name in self._open and self._open[name].owner == owner:
            del self._open[name]

    def _forget_idle(self) -> None:
        now = self._clock()
        for name, one in list(self._open.items()):
            if not one.calls and now - one.used > IDLE_SECONDS:
                del self._open[name]
