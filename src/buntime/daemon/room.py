"""Bounds the server's memory for large answers.

A run may print 20 MB, which can become 120 MB as JSON. A hundred of them at once would kill the server. So each request
counts what it brings, from the moment it is read until its answer is sent. When the memory is used up, the server
refuses large answers. Small ones always pass.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from buntime.errors import Unavailable

SMALL = 1 << 20  # bytes; this much of each request is not counted
LIMIT = 768 << 20  # bytes, for all requests …
SHARE = 384 << 20  # … and for those of one account


class Holding:
    """What one request holds, until the request ends. What arrives for it later is not counted."""

    def __init__(self, room: "Room") -> None:
        self._room = room
        self._owner = ""
        self._asked = self.counted = 0
        self._ended = False

    def belongs_to(self, account: str) -> None:
        """Call this before the request holds anything large."""
        self._owner = account

    def grow(self, size: int) -> None:
        """Counts `size` bytes more. Raises Unavailable when there is no room for them."""
        if self._ended:
            return
        self._asked += size
        more = max(self._asked - SMALL, 0) - self.counted
        if more > 0:
            self._room.take(self._owner, more)
            self.counted += more

    def end(self) -> None:
        self._ended = True
        self._room.give_back(self._owner, self.counted)


class Room:
    def __init__(self, limit: int = LIMIT, share: int = SHARE) -> None:
        self._limit, self._share = limit, share
        self._used: Counter[str] = Counter()  # by account

    @property
    def used(self) -> int:
        """Bytes."""
        return self._used.total()

    def take(self, account: str, size: int) -> None:
        if self.used + size > self._limit or self._used[account] + size > self._share:
            raise Unavailable("Too many large answers are on their way. Try again shortly, a few at a time.", 5)
        self._used[account] += size

    def give_back(self, account: str, size: int) -> None:
        self._used[account] -= size
        if not self._used[account]:
            del self._used[account]

    @contextmanager
    def for_one_request(self) -> Iterator[Holding]:
        """Within the block, and in tasks started there, `hold` counts for this request."""
        holding = Holding(self)
        token = _holding.set(holding)
        try:
            yield holding
        finally:
            _holding.reset(token)
            holding.end()


_holding: ContextVar[Holding | None] = ContextVar("holding", default=None)


def hold(size: int) -> None:
    """Counts `size` bytes more for the current request, if there is one. Raises Unavailable."""
    holding = _holding.get()
    if holding is not None:
        holding.grow(size)


def belongs_to(account: str) -> None:
    """Sets the account of the current request."""
    holding = _holding.get()
    if holding is not None:
        holding.belongs_to(account)
