"""Fills the disk in large pieces, deletes the file, and begins again. The volume's quota limits it."""

import os

from held import Held

PIECE = bytes(1 << 20)
held, most = Held(), 0
while True:
    kept = 0
    file = os.open("/root/full", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        while True:
            kept += os.write(file, PIECE)
            most = max(most, kept >> 20)
            held.report(most)
    except OSError:
        os.close(file)
