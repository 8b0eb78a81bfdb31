"""Writes small pieces at random offsets and forces each to disk, with fsync or direct I/O. Calls sync all the time.

The sandbox's blkio (v1) or io (v2) cgroup limits the writes. All sessions share the file system's commits.
"""

import mmap
import os
import random
import time

from held import Held

SIZE = 64 << 20
PAGE = mmap.mmap(-1, 4096)
held = Held()


def fsyncs(name: str, done: mmap.mmap, place: int) -> None:
    file = os.open(name, os.O_CREAT | os.O_RDWR)
    os.truncate(file, SIZE)
    while True:
        os.pwrite(file, PAGE, random.randrange(SIZE // 4096) * 4096)
        os.fsync(file)
        done[place] = (done[place] + 1) % 256
        done[place + 1] = (done[place + 1] + (done[place] == 0)) % 256


def direct(name: str, done: mmap.mmap, place: int) -> None:
    file = os.open(name, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.truncate(file, SIZE)
    while True:
        os.pwrite(file, PAGE, random.randrange(SIZE // 4096) * 4096)
        done[place] = (done[place] + 1) % 256
        done[place + 1] = (done[place + 1] + (done[place] == 0)) % 256


def syncs(_: str, done: mmap.mmap, place: int) -> None:
    while True:
        os.sync()
        done[place] = (done[place] + 1) % 256
        done[place + 1] = (done[place + 1] + (done[place] == 0)) % 256


counts = mmap.mmap(-1, 4096)
WORK = (fsyncs, fsyncs, fsyncs, direct, direct, syncs)
for number, work in enumerate(WORK):
    if os.fork() == 0:
        work(f"/root/storm{number}", counts, 2 * number)
while True:
    held.report(sum(counts[2 * number] + 256 * counts[2 * number + 1] for number in range(len(WORK))))
    time.sleep(0.1)
