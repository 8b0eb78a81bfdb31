"""Runs a fork bomb: every process forks, and ended processes are replaced. The session's pids cgroup limits them."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from held import Held

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children


def multiply() -> None:
    os.nice(19)  # only within the session: its report must come through, also on a slow machine
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
    held.report(sum(entry.name.isdecimal() for entry in Path("/proc").iterdir()))
    time.sleep(0.2)
