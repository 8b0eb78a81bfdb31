"""A server that starts goes first: on a full host, it waits longer for a processor than it works.

Only the thread that starts it has the niceness. What it starts meanwhile, threads and programs, has the usual one.
Where the kernel weighs sessions of processes, and the server leads one, that whole session goes first.
"""

import os
from contextlib import suppress
from pathlib import Path

USUAL, FIRST = 0, -10  # niceness
HASTY = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK  # what this thread starts has the usual niceness
NOTHING = os.sched_param(0)
AUTOGROUP = Path("/proc/self/autogroup")


def make_haste() -> None:
    """From now on, this thread goes first. No effect where the host does not allow it, or has chosen a niceness."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == USUAL and os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, HASTY, NOTHING)
            os.setpriority(os.PRIO_PROCESS, 0, FIRST)
            _put_group(USUAL, FIRST)


def end_haste() -> None:
    """This thread is like any other again."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == FIRST and os.sched_getscheduler(0) == HASTY:
            os.setpriority(os.PRIO_PROCESS, 0, USUAL)
            os.sched_setscheduler(0, os.SCHED_OTHER, NOTHING)
            _put_group(FIRST, USUAL)


def _put_group(before: int, after: int) -> None:
    """Many kernels weigh sessions of processes against each other. A niceness counts within one of them alone. Others'
    sessions stay as they are."""
    if os.getsid(0) == os.getpid() and AUTOGROUP.read_text().endswith(f" nice {before}\n"):
        AUTOGROUP.write_text(str(after))
