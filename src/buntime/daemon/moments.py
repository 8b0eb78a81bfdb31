"""The time by both clocks of this host."""

import time
from collections.abc import Callable
from pathlib import Path

from buntime.usage import Moment

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NS_A_MS = 1_000_000


def host_moments() -> Callable[[], Moment]:
    """What tells the time. The steady clock goes on while the host itself is suspended."""
    boot = BOOT_ID.read_text().strip()

    def moment() -> Moment:
        return Moment(time.time_ns() // _NS_A_MS, boot, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _NS_A_MS)

    return moment


def moments_of(clock: Callable[[], float]) -> Callable[[], Moment]:
    """The same by one clock (Unix seconds) that nobody sets, as in tests."""
    return lambda: Moment(int(1000 * clock()), "", int(1000 * clock()))
