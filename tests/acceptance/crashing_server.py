"""A server that kills itself: crashing_server.py STEP ARMED

It is `buntime serve`, but once the file ARMED exists, the server kills itself with SIGKILL when it reaches the named
step (see `buntime.daemon.steps`). It never reaches the step `-`. It archives even the smallest sessions as chains, and
the chains are short, so a few sleeps make and fold one.
"""

import os
import signal
import sys
from pathlib import Path

from buntime import main
from buntime.config import from_environment
from buntime.daemon import steps
from buntime.lifecycle import chains
from buntime.sandboxes import local_volumes


def named_steps() -> list[str]:
    """Returns all steps of a server in `buntime.daemon.steps`, in order of execution."""
    groups = [group for group in vars(steps).values() if isinstance(group, tuple) and group is not steps.ADD_IMAGE]
    return [step for group in groups for step in group]


def run(step: str, armed: Path) -> None:
    def die_at(passed: str) -> None:
        if passed == step and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    if step not in ["-", *named_steps()]:
        sys.exit(f"{step!r} is not a step")
    steps.hook = die_at
    local_volumes.LEAST_KEPT, chains.LINK_BYTES, chains.MOST_LINKS = 0, 1, 4
    main.serve(from_environment(os.environ))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
