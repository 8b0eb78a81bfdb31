"""Fills most of the session's memory with bytes that do not compress, and writes new ones over them for ever."""

import os

from held import Held

MB = 1 << 20
STEP, MOST = 8, 200  # MB

held, kept = Held(), list[bytes]()
while True:
    kept.append(os.urandom(STEP * MB))
    if len(kept) * STEP > MOST:
        kept.pop(0)
    held.report(len(kept) * STEP)
