"""Locks single bytes of files that other processes of the host close all the time: /dev/null and the guest's loader.
Whoever closes a file walks through the locks on it; on a file that sessions share, through those of all of them."""

import fcntl
import os

from held import Held

held, kept = Held(), 0
files = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/run/guest/ld.so")]
while True:
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 1_000_000_000 - 2 * kept)
    kept += 1
    held.tell(kept)
