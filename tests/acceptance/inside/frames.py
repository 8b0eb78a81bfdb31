"""Runs in a session: frames.py PORT HEAD SIZE SECONDS – sends WebSocket frames as fast as possible, and never reads."""

import socket
import sys
import time
from contextlib import suppress

port, head, size, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
frame = bytes([0x82, 0xFF]) + size.to_bytes(8) + bytes(4) + b"x" * size
batch = frame * max(1, 65536 // len(frame))
with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
    stream.sendall(head.encode())
    answered = b""
    while not answered.endswith(b"\r\n\r\n"):
        answered += stream.recv(1)
    assert answered.startswith(b"HTTP/1.1 101 "), answered
    print("open", flush=True)
    ends, sent = time.monotonic() + seconds, 0
    stream.settimeout(0.2)
    with suppress(ConnectionError):  # the other side may close the connection
        while time.monotonic() < ends:
            with suppress(TimeoutError):
                sent += stream.send(batch)
    print(sent, flush=True)
