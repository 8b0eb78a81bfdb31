"""Takes memory until the kernel kills the process, and begins again. The session's memory cgroup limits it."""

import mmap
import os
from pathlib import Path

from held import Held

MB = 1 << 20
STEP = 16 * MB


def take(to_parent: int) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel kills this process before its parent
    kept = []
    while True:
        room = mmap.mmap(-1, STEP)
        for page in range(0, STEP, 4096):
            room[page] = 1
        kept.append(room)
        os.write(to_parent, b"x")


held, most = Held(), 0
while True:
    receive, send = os.pipe()
    if os.fork() == 0:
        take(send)
    os.close(send)
    taken = 0
    while os.read(receive, 1):
        taken += STEP // MB
        most = max(most, taken)
        held.report(most)
    os.close(receive)
    os.wait()
