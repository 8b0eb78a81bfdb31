"""Runs in two sessions: shared.py hold|try|watch|use – acts on files that look the same in both.

hold: locks each file and keeps the locks
try: tries to lock each file, and prints the outcomes as JSON
watch: prints each file that inotify reports
use: opens and closes each file
"""

import ctypes
import fcntl
import json
import os
import sys
import time
from pathlib import Path

PLACES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/etc/resolv.conf", "/etc/passwd"),
    *("/run/guest", "/run/guest/guest", "/run/guest/ld.so", "/run/guest/kernel.js"),
    *("/usr/bin/env", "/", "/proc/version"),
)
MASK = 0xFFF  # every event


def locked(path: str) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not Path(path).is_dir():
            fcntl.lockf(os.open(path, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def watch() -> None:
    libc = ctypes.CDLL(None)
    handle = libc.inotify_init()
    numbers = {libc.inotify_add_watch(handle, path.encode(), MASK): path for path in PLACES}
    print("watching", flush=True)
    while events := os.read(handle, 4096):
        print(numbers[int.from_bytes(events[:4], "little")], flush=True)


match sys.argv[1]:
    case "hold":
        print("held", [path for path in PLACES if locked(path)] == [*PLACES], flush=True)
        time.sleep(600)
    case "try":
        print(json.dumps({path: locked(path) for path in PLACES}))
    case "watch":
        watch()
    case "use":
        for path in PLACES:
            os.close(os.open(path, os.O_RDONLY))
