"""Queues signals that nobody takes. RLIMIT_SIGPENDING: counted for the user, and for the maker of the namespace."""

import ctypes
import os
import signal

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
held, kept = Held(), 0
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
while LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, 1) == 0:
    kept += 1
    if kept % 100 == 0:
        held.tell(kept)
held.keep(kept, os.strerror(ctypes.get_errno()))
