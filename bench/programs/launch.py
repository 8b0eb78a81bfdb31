"""Starts a program and tells what it took: launch.py PROGRAM ARGUMENTS… → JSON.

A process keeps the peak of memory of whoever started it, until its own is higher: so this one is small.
"""

import json
import os
import sys
import time


def main() -> None:
    reader, writer = os.pipe()
    start = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, reader)]
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
    os.close(writer)
    with open(reader, "rb") as output:
        said = output.read()
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    told = {"status": status, "output": said.decode(), "milliseconds": seconds * 1000, "peakMB": usage.ru_maxrss / 1024}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
