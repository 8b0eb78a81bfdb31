"""Runs in the network outside: discards everything that is sent to port 9000 by TCP and UDP."""

import selectors
import socket

selector = selectors.DefaultSelector()
listener, datagrams = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for place in (listener, datagrams):
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("0.0.0.0", 9000))
listener.listen(1024)
selector.register(listener, selectors.EVENT_READ)
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        connection = key.fileobj
        assert isinstance(connection, socket.socket)
        try:
            taken = connection.recv_into(buffer)
        except OSError:
            taken = 0
        if not taken:
            selector.unregister(connection)
            connection.close()
