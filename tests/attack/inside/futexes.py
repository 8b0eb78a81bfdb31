"""Waits for and wakes shared futexes. Each call locks a bucket of a kernel table that all sessions share."""

import ctypes
import mmap
import os

from held import Held

LIBC = ctypes.CDLL(None, use_errno=True)
FUTEX = 98 if os.uname().machine == "aarch64" else 202
WAIT, WAKE = 0, 1
PROCESSES, ROUND = 8, 1000
words = mmap.mmap(-1, 4096)
first = ctypes.addressof(ctypes.c_char.from_buffer(words))
receive, send = os.pipe()
for _ in range(PROCESSES):
    if os.fork() == 0:
        while True:
            for number in range(ROUND):
                word = ctypes.c_void_p(first + 4 * (number % 1024))
                LIBC.syscall(FUTEX, word, WAIT, 1, None)  # returns at once, since the word is 0, not 1
                LIBC.syscall(FUTEX, word, WAKE, 1)
            os.write(send, b"x")
held, rounds = Held(), 0
while ticks := os.read(receive, 1 << 16):
    rounds += len(ticks)
    held.report(rounds * ROUND)
