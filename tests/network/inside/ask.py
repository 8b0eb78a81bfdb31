"""Runs in a session's network: ask.py SERVER NAME TYPE udp|tcp SECONDS – prints the answer's code and addresses."""

import socket
import struct
import sys

server, name, kind, way, seconds = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
message = struct.pack("!6H", 77, 256, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", int(kind), 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM) as asking:
    asking.settimeout(float(seconds))
    try:
        asking.connect((server, 53))
        asking.send(message if way == "udp" else struct.pack("!H", len(message)) + message)
        answer = asking.recv(4096) if way == "udp" else asking.recv(4096)[2:]
        if way == "tcp" and not answer:
            answer = asking.recv(4096)
    except OSError:
        print(-1)
        sys.exit()
assert answer[:2] == message[:2], answer
start = len(message)
print(answer[3] & 15)
for _ in range(int.from_bytes(answer[6:8])):
    while answer[start] and answer[start] < 0xC0:
        start += 1 + answer[start]
    start += 2 if answer[start] else 1
    found, _, _, length = struct.unpack_from("!2HIH", answer, start)
    if found == 1:
        print(socket.inet_ntoa(answer[start + 10 : start + 14]))
    start += 10 + length
