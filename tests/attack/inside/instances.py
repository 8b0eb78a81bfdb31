"""Opens inotify instances. Counted for the user namespace, and for the user who made it."""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
held, kept = Held(), 0
while LIBC.inotify_init() >= 0:
    kept += 1
    held.tell(kept)
held.keep(kept, os.strerror(ctypes.get_errno()))
