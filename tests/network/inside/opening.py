"""Runs in a session's network: opening.py ADDRESS SECONDS – opens many connections at a time to port 9001.

Closes each when the other side does. Prints the number of established connections.
"""

import selectors
import socket
import sys
import time

address, seconds = sys.argv[1], float(sys.argv[2])
AT_ONCE = 64
selector = selectors.DefaultSelector()
end, made = time.monotonic() + seconds, 0
while time.monotonic() < end:
    while len(selector.get_map()) < AT_ONCE:
        there = socket.socket()
        there.setblocking(False)
        there.connect_ex((address, 9001))
        selector.register(there, selectors.EVENT_READ)
    for key, _ in selector.select(0.1):
        ready = key.fileobj
        assert isinstance(ready, socket.socket)
        selector.unregister(ready)
        try:
            made += ready.recv(1) == b""
        except OSError:
            continue
        finally:
            ready.close()
print(made)
