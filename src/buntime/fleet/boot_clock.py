"""The clock of leases: it goes on while the machine is suspended, and nobody sets it."""

import time


def boot_seconds() -> float:
    """CLOCK_BOOTTIME. A machine that its hypervisor pauses may not see the time that it missed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
