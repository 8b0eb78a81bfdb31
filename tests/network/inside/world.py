"""Runs in the network outside: world.py PORT ... – echoes TCP and UDP on all its addresses.

Prints a line for everything that reaches it: `tcp PORT` for a connection, `udp PORT TEXT` for a datagram.
"""

import selectors
import socket
import sys
from typing import Any

PACKET_INFO = 8  # IP_PKTINFO: answers from the address that the client used

selector = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    for kind, name in ((socket.SOCK_STREAM, "listen"), (socket.SOCK_DGRAM, "udp")):
        place = socket.socket(socket.AF_INET, kind)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.setsockopt(socket.IPPROTO_IP, PACKET_INFO, 1)
        place.bind(("0.0.0.0", port))
        if name == "listen":
            place.listen(64)
        selector.register(place, selectors.EVENT_READ, (name, port))
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        name, port = key.data
        ready: Any = key.fileobj
        try:
            if name == "listen":
                connection = ready.accept()[0]
                selector.register(connection, selectors.EVENT_READ, ("tcp", port))
                print("tcp", port, flush=True)
            elif name == "udp":
                data, ancillary, _, sender = ready.recvmsg(2000, 200)
                print("udp", port, data[:100].decode(errors="replace"), flush=True)
                ready.sendmsg([data], ancillary, 0, sender)
            else:
                data = ready.recv(65536)
                if data:
                    ready.sendall(data)
                else:
                    selector.unregister(ready)
                    ready.close()
        except OSError:
            if name == "tcp":
                selector.unregister(ready)
                ready.close()
