"""Runs a program and reports its time and memory: launch.py PROGRAM ARGUMENTS… → JSON.

A process inherits the memory peak of the process that started it, until its own is higher. So this one is small.
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
