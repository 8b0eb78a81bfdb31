"""Python imports this first in each program of a host, because the lab puts this directory into its PYTHONPATH.

It gives the host a clock of its own, and breaks buntime where a run of the history checker asks for a mutant. All hosts
share the machine's clock, which nobody may set.
"""

import os
import time
from importlib import import_module
from pathlib import Path


def _step_clock(file: Path) -> None:
    """Wall-clock time alone, as when somebody sets it."""
    now, now_ns = time.time, time.time_ns

    def ahead() -> float:
        try:
            return float(file.read_text())
        except (OSError, ValueError):
            return 0.0

    time.time = lambda: now() + ahead()
    time.time_ns = lambda: now_ns() + int(ahead() * 1e9)


if clock := os.environ.get("FLEET_CLOCK"):  # a file that tells how many seconds the host's clock is ahead
    _step_clock(Path(clock))
if mutant := os.environ.get("FLEET_MUTANT"):
    import_module("fleet_mutants").MUTANTS[mutant].apply()  # a file beside this one
