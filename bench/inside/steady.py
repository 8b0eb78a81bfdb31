"""Writes blocks to a file at a steady pace, over and over, until SIGTERM: steady.py FILE BLOCK INTERVAL NOTES [fresh].

Then it writes to the file NOTES when each write was done, as a JSON list of seconds on CLOCK_MONOTONIC, which the host
shares. BLOCK is in bytes, INTERVAL in seconds. A late write does not make the next ones come sooner. With `fresh`, each
block has other bytes. Runs in a session.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(file: str, block: str, interval: str, notes: str, fresh: str = "") -> None:
    done, stopping = list[float](), list[int]()
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    content, pause = os.urandom(int(block)), float(interval)
    target = os.open(file, os.O_RDWR)
    size = os.fstat(target).st_size // len(content) * len(content)
    due, place = time.monotonic(), 0
    print("writes", flush=True)
    while not stopping:
        os.pwrite(target, os.urandom(len(content)) if fresh else content, place)
        place = (place + len(content)) % size
        now = time.monotonic()
        done.append(now)
        due = max(due + pause, now)
        time.sleep(max(due - time.monotonic(), 0))
    Path(notes).write_text(json.dumps(done))


if __name__ == "__main__":
    main(*sys.argv[1:])
