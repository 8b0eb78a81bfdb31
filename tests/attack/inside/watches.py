"""Takes inotify watches, one per file. Limits apply to the user namespace and to the host user who made it."""

import ctypes
import os
from pathlib import Path

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
held, kept = Held(), 0
Path("/tmp/watched").mkdir()
while True:
    handle = LIBC.inotify_init()
    if handle < 0:
        held.keep(kept, "instances")
    for number in range(20_000):
        path = f"/tmp/watched/{handle}-{number}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        except OSError as refused:
            held.keep(kept, str(refused.strerror))
        if LIBC.inotify_add_watch(handle, path.encode(), 2) < 0:
            held.keep(kept, os.strerror(ctypes.get_errno()))
        kept += 1
        if kept % 100 == 0:
            held.report(kept)
