"""Locks single bytes of many files. Each lock is a kernel object.

Linux neither limits nor charges locks: RLIMIT_LOCKS has no effect.
"""

import fcntl
import os

from held import Held

LOCKS = 400  # per file; for each new lock the kernel walks through all locks of the file
held, kept, files = Held(), 0, 0
try:
    while True:
        file = os.open(f"/tmp/locked{files}", os.O_CREAT | os.O_RDWR)
        files += 1
        for number in range(LOCKS):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number * 2)
        kept += LOCKS
        held.report(kept)
except OSError as refused:
    held.keep(kept, str(refused.strerror))
