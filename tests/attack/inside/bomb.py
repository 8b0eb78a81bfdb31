"""A fork bomb: every process makes more, and those that end are replaced. Counted in the session's pids cgroup."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from held import Held

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them


def multiply() -> None:
    while True:
        with suppress(OSError):
            if os.fork() == 0:
                continue
        time.sleep(0.001)


held = Held()
for _ in range(4):
    if os.fork() == 0:
        multiply()
while True:
    held.tell(sum(entry.name.isdecimal() for entry in Path("/proc").iterdir()))
    time.sleep(0.2)
