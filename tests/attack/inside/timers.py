"""Makes POSIX timers. Each is a pending signal to the kernel: RLIMIT_SIGPENDING."""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
TIMER_CREATE = 107 if os.uname().machine == "aarch64" else 222
PROCESSES = 20  # a number of timers may be bounded for a process
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
    told = os.read(receive, 1 << 16)
    kept, ended = kept + told.count(b"x"), ended + told.count(b".")
    held.tell(kept)
held.keep(kept)
