"""Runs in a session's network: answering.py PORT – serves one connection.

Prints all bytes that arrive, and sends each line of its stdin. Both are in hex.
"""

import socket
import sys
import threading

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()


def _send() -> None:
    for line in sys.stdin:
        connection.sendall(bytes.fromhex(line))


threading.Thread(target=_send, daemon=True).start()
while piece := connection.recv(65536):
    print(piece.hex(), flush=True)
