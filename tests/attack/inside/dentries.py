"""Looks up missing names: the kernel caches each one. The cache is charged to the memory cgroup and reclaimed last."""

import os

from held import Held

held, asked = Held(), 0
while True:
    for _ in range(1000):
        os.access(f"/tmp/missing-{asked:0200d}", os.F_OK)
        asked += 1
    held.report(asked)
