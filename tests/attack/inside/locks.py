"""Locks single bytes of many files: each lock is an object of the kernel's. Nothing bounds their number, and Linux
charges them to nobody (RLIMIT_LOCKS has no effect)."""

import fcntl
import os

from held import Held

LOCKS = 400  # of a file: the kernel walks through all of one file for each new one
held, kept, files = Held(), 0, 0
try:
    while True:
        file = os.open(f"/tmp/locked{files}", os.O_CREAT | os.O_RDWR)
        files += 1
        for number in range(LOCKS):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number * 2)
        kept += LOCKS
        held.tell(kept)
except OSError as refused:
    held.keep(kept, str(refused.strerror))
