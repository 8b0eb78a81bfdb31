"""Locks single bytes of a file: each lock is an object of the kernel's, which is charged to the memory cgroup."""

import fcntl
import os

from held import Held

held, kept = Held(), 0
with open("/root/locked", "w") as file:
    os.truncate(file.fileno(), 1 << 30)
    try:
        while True:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, kept * 2)
            kept += 1
            if kept % 1000 == 0:
                held.tell(kept)
    except OSError as refused:
        held.keep(kept, str(refused.strerror))
