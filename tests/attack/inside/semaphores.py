"""Makes System V semaphore sets of the largest allowed size, and full message queues.

The session's IPC namespace limits their number. Their memory is charged to the memory cgroup.
"""

import ctypes
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
held, kept, queues = Held(), 0, 0
message = ctypes.create_string_buffer(8 + 8192)
message[0] = b"\x01"
while LIBC.semget(0, 32_000, 0o1600) >= 0:
    kept += 1
    held.report(kept)
note = os.strerror(ctypes.get_errno())
while (queue := LIBC.msgget(0, 0o1600)) >= 0:
    while LIBC.msgsnd(queue, message, 8192, 0o4000) == 0:
        pass
    queues += 1
    held.report(kept + queues)
held.keep(kept + queues, note)
