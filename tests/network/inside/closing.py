"""Runs in the network outside: closes every connection to port 9001 at once."""

import socket

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 9001))
listener.listen(1024)
print("ready", flush=True)
while True:
    listener.accept()[0].close()
