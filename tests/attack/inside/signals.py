"""Queues signals that stay pending. RLIMIT_SIGPENDING limits them, for the user and for the namespace's owner."""

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
        held.report(kept)
held.keep(kept, os.strerror(ctypes.get_errno()))
