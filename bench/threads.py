"""Threads on this host that only sleep, for figures that ask whether something costs more with many."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen

STACK = 64 << 10  # bytes
PROCESSES = 10
PROGRAM = f"""
import sys, threading
threading.stack_size({STACK})
end = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=end.wait, daemon=True).start()
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def sleeping_threads(count: int) -> Iterator[None]:
    """Raises RuntimeError when this host does not allow as many. They end with the block, or with this program."""
    each = count // PROCESSES
    started = list[Popen[bytes]]()
    try:
        for _ in range(PROCESSES if each else 0):
            started.append(Popen([sys.executable, "-c", PROGRAM, str(each)], stdin=PIPE, stdout=PIPE))
        for process in started:
            if process.stdout is None or process.stdout.readline() != b"there\n":
                raise RuntimeError(f"{count} threads could not be started on this host")
        yield
    finally:
        for process in started:
            process.communicate()
