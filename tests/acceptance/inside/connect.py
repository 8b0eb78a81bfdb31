"""Runs in a session: connect.py ADDRESS:PORT ... – connects to all at the same time, and prints those that succeed."""

import select
import socket
import sys
import time

SECONDS = 1.5

attempts = {}
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    attempt = socket.socket()
    attempt.setblocking(False)
    try:
        attempt.connect((host, int(port)))
    except BlockingIOError:
        attempts[attempt.fileno()] = (attempt, target)
    except OSError:
        continue
deadline = time.monotonic() + SECONDS
while attempts and time.monotonic() < deadline:
    settled = select.select([], list(attempts), [], max(deadline - time.monotonic(), 0))[1]
    for number in settled:
        attempt, target = attempts.pop(number)
        if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            print(target)
