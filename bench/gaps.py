"""Pauses of a program that writes at a steady pace, from the times at which its writes were done."""

from bisect import bisect_left
from collections.abc import Sequence


def pauses(done: Sequence[float], interval: float, since: float, until: float) -> list[float]:
    """Returns how many seconds each write that was under way at some time from `since` to `until` came later than
    `interval` after the one before.

    The first write has none before, and counts for nothing. Raises ValueError if the program wrote only before or only
    after that time.
    """
    first = max(bisect_left(done, since), 1)
    last = bisect_left(done, until)
    if first >= len(done) or last == 0 or last == len(done):
        raise ValueError("the program did not write at that time")
    return [max(done[place] - done[place - 1] - interval, 0.0) for place in range(first, last + 1)]
