"""What the kernel may charge a volume that shares content, so that what it contains stays within its limit.

Simple quotas charge an extent to the volume that wrote it, until nothing refers to it. A volume from which a layer was
captured goes on being charged for what it deletes. One that was copied from a layer is charged for nothing of it. So
the kernel's limit of such a volume follows what it really contains. See docs/decisions/0021.
"""

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

from buntime.plan import MB

SLACK = 128 * MB  # at most: so much of what it shares can be rewritten before the next measurement
FREED = 64 * MB  # charged less since a measurement: it may have been for what the volume had deleted long before
FULL_MARGIN = 1 * MB  # closer to a limit, the next write of ordinary size fails
LEAST_GROWTH = 16 * MB  # since a measurement, for another one while the volume is not full


class Charges(NamedTuple):
    """Bytes that the kernel charges to a volume now."""

    referenced: int
    promised: int  # to content that is not written, or was written after the last commit
    prepared: int  # for changes of its tree
    changed: int  # by changes of its tree since the last commit

    @property
    def data(self) -> int:
        return self.referenced + self.promised


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of a volume at one moment."""

    size: int  # of all that it contains, whoever is charged for it
    old: int  # of these, what may be charged to another volume, or kept by a layer
    charged: int  # to this volume, by the kernel
    promised: int = 0  # of these, to pages that are not on the disk yet: new content, or a second time what `size` has

    def is_full(self, limit: int) -> bool:
        return self.size >= limit

    def is_vague(self, limit: int) -> bool:
        """Whether only the pages that are not on the disk yet can say if it is full."""
        return self.size < limit <= self.size + self.promised

    def left(self, limit: int) -> int:
        return max(0, limit - self.size - self.promised)

    def bound(self, limit: int) -> int:
        """What the kernel may charge the volume until the next measurement.

        At the bound, the kernel itself first puts the volume's pages on the disk and looks again. So a measurement
        meanwhile is in time.
        """
        if self.is_full(limit):
            return self.charged
        return self.charged + max(0, limit - self.size - self.promised + min(SLACK, self.old))

    def is_due(self, limit: int, now: Charges, freed: int) -> bool:
        """Whether another measurement may find another bound. `freed`: bytes by which the charges fell meanwhile."""
        if self.is_full(limit) or self.is_vague(limit):
            return True
        return freed > FREED or now.data - self.charged > self.trigger(limit)

    def trigger(self, limit: int) -> int:
        """Growth of the charges after which another measurement is due."""
        return max(self.left(limit) // 2, min(LEAST_GROWTH, self.left(limit)))


@dataclass(slots=True)
class Share:
    """What is known of a volume that shares content."""

    limit: int  # bytes that it may contain
    measured: Measured | None = None
    refused_at: float = -math.inf  # when the kernel last charged all that it might, although there was room

    def take(self, measured: Measured, *, at_bound: bool) -> None:
        """Remembers a measurement. `at_bound`: the kernel charged the volume all that it might.

        It may have refused content until now. But a volume that was full may still be charged for what it deleted.
        """
        if at_bound and self._has_room(measured):
            self.note_bound()
        self.measured = measured

    def note_bound(self) -> None:
        """The kernel charges the volume all that it may. A moment later it may be charged for less: layers go."""
        if self._has_room(self.measured):
            self.refused_at = time.monotonic()

    def _has_room(self, measured: Measured | None) -> bool:
        return measured is None or measured.left(self.limit) >= FULL_MARGIN
