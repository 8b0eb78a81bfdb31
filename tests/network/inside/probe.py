"""Runs in a session's network: probe.py TARGET ... – tries `tcp:ADDRESS:PORT` and `udp:ADDRESS:PORT`, all at once.

Prints a JSON object with a result for each target: "open" (connected, or for udp, answered), "refused", or "silent". It
gives up a second after the last open one.
"""

import json
import select
import socket
import sys
import time

SECONDS = 1.0

found: dict[str, str] = {}
waiting: dict[int, tuple[socket.socket, str, str]] = {}
for target in sys.argv[1:]:
    kind, _, place = target.partition(":")
    host, _, port = place.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    attempt = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    attempt.setblocking(False)
    found[target] = "silent"
    try:
        attempt.connect((host, int(port)))
        if kind == "udp":
            attempt.send(b"probe")
    except BlockingIOError:
        pass
    except OSError:
        found[target] = "refused"
        continue
    waiting[attempt.fileno()] = (attempt, kind, target)
deadline = time.monotonic() + SECONDS
while waiting and time.monotonic() < deadline:
    streams = [number for number, (_, way, _) in waiting.items() if way == "tcp"]
    datagrams = [number for number, (_, way, _) in waiting.items() if way == "udp"]
    readable, writable = select.select(datagrams, streams, [], max(deadline - time.monotonic(), 0))[:2]
    ready: list[int] = [*readable, *writable]
    for number in ready:
        attempt, kind, target = waiting.pop(number)
        try:
            if kind == "udp":
                attempt.recv(100)
                found[target] = "open"
            else:
                failed = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                found[target] = "refused" if failed else "open"
        except OSError:
            found[target] = "refused"
        if found[target] == "open":
            deadline = time.monotonic() + SECONDS
print(json.dumps(found))
