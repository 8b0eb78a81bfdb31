"""Makes segments of System V shared memory.

kernel.shmmni limits their number in the session's IPC namespace. Their pages are charged to the memory cgroup, and stay
after the process ends.
"""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
MB, STEP = 1 << 20, 16
held, kept = Held(), 0
while True:
    segment = LIBC.shmget(0, STEP * MB, 0o1600)
    if segment < 0:
        held.keep(kept, os.strerror(ctypes.get_errno()))
    if os.fork() == 0:
        ctypes.memset(LIBC.shmat(segment, None, 0), 1, STEP * MB)
        os._exit(0)
    _, status = os.wait()
    if status:
        held.keep(kept, "killed for memory")
    kept += STEP
    held.report(kept)
