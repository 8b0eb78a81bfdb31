"""Makes threads that wait for futexes in one bucket of the kernel's table, which all sessions share, and wakes them."""

import os
import threading

from held import Held

held, woken = Held(), 0
for _ in range(4):
    os.fork()
first = os.getpid()
locks = [threading.Lock() for _ in range(20)]


def quarrel() -> None:
    global woken
    while True:
        for lock in locks:
            with lock:
                woken += 1


for _ in range(20):
    threading.Thread(target=quarrel, daemon=True).start()
while True:
    threading.Event().wait(0.1)
    held.tell(woken)
