"""Locks single bytes of files that other processes close all the time: /dev/null, the guest's loader, and an eventfd.
The kernel walks through all locks on a file's inode at each close. All eventfds, epolls and timerfds of the host have
one inode; the others are objects of the session's own."""

import fcntl
import os

from held import Held

held, kept = Held(), 0
files = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/run/guest/ld.so")] + [os.eventfd(0)]
while True:
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 1_000_000_000 - 2 * kept)
    kept += 1
    held.tell(kept)
