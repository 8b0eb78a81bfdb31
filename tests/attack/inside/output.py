"""Writes endless output. It passes through the guest, and the session keeps the newest part as a log."""

import os

from held import Held

held, written, line = Held(), 0, b"y" * 99 + b"\n"
while True:
    written += os.write(1, line * 600)
    held.report(written >> 20)
