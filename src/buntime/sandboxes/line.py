"""Claims that wait for a start because nothing is parked: how long they wait, and whether one more may."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from buntime.errors import Crowded

LONGEST_WAIT = 7.0  # seconds; a create has ten, and needs some for its answer
FIRST_PACE = 0.05  # seconds between two starts, before one is known
FREE = 4  # claims that may wait whatever the pace was: it may be another one by now
LEAST_KNOWN, MOST_KNOWN = 5, 33  # starts in a row, of which the pace is the average
LONGEST_RETRY = 60  # seconds


class Line:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = FIRST_PACE
        self._starts: deque[float] = deque(maxlen=MOST_KNOWN)  # times of the last ones, while others waited
        self._next_turn = 0.0  # until then, all places have been promised to claims that were refused
        self.waiting = 0

    def require(self) -> None:
        """Raises Crowded when a claim that comes now would wait too long.

        Its Retry-After is true: for each sandbox that starts, one claim may wait again. Each refused claim is told
        the time of another one.
        """
        if self.waiting < FREE or (self.waiting + 1) * self._pace <= LONGEST_WAIT:
            return
        raise self.refusal()

    def refusal(self) -> Crowded:
        """For a claim that waits no longer, or does not begin to."""
        now = self._clock()
        self._next_turn = max(self._next_turn, now) + self._pace
        seconds = min(LONGEST_RETRY, math.ceil(self._next_turn - now))
        return Crowded("This host starts sessions as fast as it can, and others wait before this one.", seconds)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A claim waits for its sandbox."""
        self.waiting += 1
        began = self._clock()
        try:
            yield
            self._note(began)
        finally:
            self.waiting -= 1

    def _note(self, began: float) -> None:
        """A sandbox has started. Times in which nothing waited say nothing about the pace."""
        starts, now = self._starts, self._clock()
        starts.append(now)
        if len(starts) >= LEAST_KNOWN:
            self._pace = (now - starts[0]) / (len(starts) - 1)
        if self.waiting == 1:  # nobody waits any more
            self._pace = min(self._pace, now - began)
            starts.clear()
