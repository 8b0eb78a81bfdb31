"""Makes POSIX timers. The kernel counts each as a pending signal, which RLIMIT_SIGPENDING limits."""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
TIMER_CREATE = 107 if os.uname().machine == "aarch64" else 222
PROCESSES = 20  # several, in case the number of timers per process is limited
held, kept = Held(), 0
receive, send = os.pipe()
for _ in range(PROCESSES):
    if os.fork() == 0:
        made = 0
        while LIBC.syscall(TIMER_CREATE, 1, None, ctypes.byref(ctypes.c_int())) == 0:
            made += 1
            if made % 100 == 0:
                os.write(send, b"x" * 100)
        os.write(send, b"x" * (made % 100))
        os.write(send, b".")
        signal_nobody, _ = os.pipe()
        os.read(signal_nobody, 1)
ended = 0
while ended < PROCESSES:
    ticks = os.read(receive, 1 << 16)
    kept, ended = kept + ticks.count(b"x"), ended + ticks.count(b".")
    held.report(kept)
held.keep(kept)
