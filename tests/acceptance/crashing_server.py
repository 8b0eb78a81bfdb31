"""A server that kills itself: crashing_server.py STEP ARMED

It is `buntime serve`, but once the file ARMED exists, the server ends itself with SIGKILL when it first passes the
named step (`buntime.daemon.steps`), as if its power had been cut there. It never passes STEP `-`.
"""

import os
import signal
import sys
from pathlib import Path

from buntime import main
from buntime.config import from_environment
from buntime.daemon import steps


def named_steps() -> list[str]:
    """All that `buntime.daemon.steps` names, in the order of their work."""
    groups = [group for group in vars(steps).values() if isinstance(group, tuple)]
    return [step for group in groups for step in group]


def run(step: str, armed: Path) -> None:
    def die_at(passed: str) -> None:
        if passed == step and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    if step not in ["-", *named_steps()]:
        sys.exit(f"{step!r} is not a step")
    steps.hook = die_at
    main.serve(from_environment(os.environ))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
