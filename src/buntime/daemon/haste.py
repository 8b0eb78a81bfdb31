"""A server that starts goes first: on a full host, it waits longer for a processor than it works.

Only the thread that starts it does. What it starts meanwhile, threads and programs, has the usual priority.
"""

import os
from contextlib import suppress
from pathlib import Path

USUAL, FIRST = 0, -10  # niceness
NOTHING = os.sched_param(0)
AUTOGROUP = Path("/proc/self/autogroup")


def make_haste() -> None:
    """From now on, this thread goes first. No effect where the host does not allow it, or has chosen a niceness."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == USUAL:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, NOTHING)
            os.setpriority(os.PRIO_PROCESS, 0, FIRST)
            _put_group(USUAL, FIRST)


def end_haste() -> None:
    """This thread is like any other again."""
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == FIRST:
            os.setpriority(os.PRIO_PROCESS, 0, USUAL)
            os.sched_setscheduler(0, os.SCHED_OTHER, NOTHING)
            _put_group(FIRST, USUAL)


def _put_group(before: int, after: int) -> None:
    """Many kernels weigh sessions of processes against each other. A niceness counts within one of them alone. Others'
    sessions stay as they are."""
    if os.getsid(0) == os.getpid() and AUTOGROUP.read_text().endswith(f" nice {before}\n"):
        AUTOGROUP.write_text(str(after))
