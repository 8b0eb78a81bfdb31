"""Looks for names that are not there: the kernel remembers each one. Charged to the memory cgroup, reclaimed last."""

import os

from held import Held

held, asked = Held(), 0
while True:
    for _ in range(1000):
        os.access(f"/tmp/missing-{asked:0200d}", os.F_OK)
        asked += 1
    held.tell(asked)
