"""no_names.py ADDRESS – a name server that answers at once that there is no such name, whatever the name."""

import socket
import struct
import sys

HEADER = 12  # bytes
NO_SUCH_NAME = 0x8183  # flags: an answer, with recursion

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], 53))
    print("ready", flush=True)
    while True:
        message, sender = server.recvfrom(4096)
        end = message.find(b"\0", HEADER) + 5  # after the name: its final byte, type and class
        head = message[:2] + struct.pack("!5H", NO_SUCH_NAME, 1, 0, 0, 0)
        server.sendto(head + message[HEADER:end], sender)
