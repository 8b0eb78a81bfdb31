"""Reads an object to its end although its store breaks off."""

import time
from collections.abc import Callable, Iterator

from buntime.ports import ArchiveUnavailable

PAUSES = 0.1, 3.0  # seconds before the first attempt to go on, and at most; each pause is twice the one before
PATIENCE = 2.0  # times the longest wait for a byte: for so long, attempts to go on may bring nothing


def resumed(read: Callable[[int], Iterator[bytes]], seconds: float) -> Iterator[bytes]:
    """The pieces of an object. `read` gives those from an offset on, and raises ArchiveUnavailable where it breaks off.

    Goes on from there, however often, as long as bytes come. `seconds`: the longest that `read` waits for a byte.
    Raises what `read` raises at the beginning, and ArchiveUnavailable.
    """
    offset, pause, last = 0, PAUSES[0], time.monotonic()
    while True:
        try:
            for piece in read(offset):
                offset, pause = offset + len(piece), PAUSES[0]
                yield piece
                last = time.monotonic()
            return
        except ArchiveUnavailable:
            if not offset or time.monotonic() - last > PATIENCE * seconds:
                raise
        time.sleep(pause)
        pause = min(2 * pause, PAUSES[1])
