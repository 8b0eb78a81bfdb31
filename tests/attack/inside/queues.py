"""Makes POSIX message queues. RLIMIT_MSGQUEUE limits their bytes, for the user and for the namespace's owner."""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
MQ_OPEN = 180 if os.uname().machine == "aarch64" else 240
held, kept = Held(), 0
while LIBC.syscall(MQ_OPEN, f"queue{kept}".encode(), os.O_CREAT | os.O_RDWR, 0o600, None) >= 0:
    kept += 1
    held.report(kept)
held.keep(kept, os.strerror(ctypes.get_errno()))
