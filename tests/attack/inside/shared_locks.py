"""Locks single bytes of files that other processes often close: /dev/null, the guest's loader, and an eventfd.

At each close, the kernel walks through all locks on the file's inode. All eventfds, epolls and timerfds of the host
share one inode. The other files have an inode per session.
"""

import fcntl
import os

from held import Held

held, kept = Held(), 0
files = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/run/guest/ld.so")] + [os.eventfd(0)]
while True:
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 1_000_000_000 - 2 * kept)
    kept += 1
    held.report(kept)
