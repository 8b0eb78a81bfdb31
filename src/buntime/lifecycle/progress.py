"""How far restores from the archive are: for requests that wait for one, and for the operator's metrics.

Bytes are those of the objects, as the archive has them.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

LONGEST_RETRY = 30  # seconds


class Restore:
    """One restore that is under way. One thread counts, others read."""

    def __init__(self, total: int, steady: Callable[[], float]) -> None:
        self.total = total
        self._steady = steady
        self._done = 0
        self._begun = steady()

    def begin(self) -> None:
        """It has its turn, or begins again."""
        self._done, self._begun = 0, self._steady()

    def read(self, size: int) -> None:
        self._done += size

    @property
    def done(self) -> int:
        """At most `total`."""
        return min(self._done, self.total)

    @property
    def seconds(self) -> float:
        """Since it has had its turn."""
        return self._steady() - self._begun


@dataclass(frozen=True, slots=True)
class Progress:
    """The restores that somebody waits for, or all of a server."""

    restores: int
    done: int  # bytes
    total: int
    seconds: float  # for which the longest of them has read

    @classmethod
    def of(cls, restores: Iterable[Restore]) -> Self:
        found = list(restores)
        return cls(
            len(found),
            sum(restore.done for restore in found),
            sum(restore.total for restore in found),
            max((restore.seconds for restore in found), default=0.0),
        )

    def retry_after(self, waits: float, otherwise: int) -> int:
        """Whole seconds after which a request should come again, if it waits for `waits` seconds then.

        `otherwise`: if nothing was read yet, so that nothing can be said.
        """
        if not self.done:
            return otherwise
        left = (self.total - self.done) * self.seconds / self.done
        return max(1, min(LONGEST_RETRY, math.ceil(left - waits)))

    def details(self) -> dict[str, object]:
        """Of an error. Empty where nothing is being restored."""
        if not self.restores:
            return {}
        return {"reason": "restoring", "restoredBytes": self.done, "totalBytes": self.total}


class Restores:
    """Those that are under way, by owner: a session or a layer."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._under_way: dict[str, Restore] = {}

    @contextmanager
    def under_way(self, owner_id: str, total: int) -> Iterator[Restore]:
        """`total`: bytes of the objects that are to be read."""
        restore = self._under_way[owner_id] = Restore(total, self._steady)
        try:
            yield restore
        finally:
            if self._under_way.get(owner_id) is restore:
                del self._under_way[owner_id]

    def of(self, owner_ids: Iterable[str]) -> Progress:
        return Progress.of(self._under_way[owner] for owner in owner_ids if owner in self._under_way)

    def all(self) -> Progress:
        return Progress.of(self._under_way.values())
