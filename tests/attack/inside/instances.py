"""Opens inotify instances. Limits apply to the user namespace and to the host user who made it."""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
held, kept = Held(), 0
while LIBC.inotify_init() >= 0:
    kept += 1
    held.report(kept)
held.keep(kept, os.strerror(ctypes.get_errno()))
