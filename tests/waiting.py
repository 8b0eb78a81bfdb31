"""Waiting for what a test has begun, without a guess at how long it takes."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds; a guard against a hang
REST = 0.02  # seconds between two looks
LOOKS_AT_ONCE = 100  # what happens in the test's own loop needs no time, only turns


def until(seen: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Asks `seen` until it is true."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"{what}: waited in vain"
        time.sleep(REST)


async def eventually(seen: Callable[[], object], what: str = "it", seconds: float = PATIENCE) -> None:
    """The same in a test's loop, which goes on meanwhile."""
    deadline, looks = time.monotonic() + seconds, 0
    while not seen():
        assert time.monotonic() < deadline, f"{what}: waited in vain"
        looks += 1
        await asyncio.sleep(0 if looks < LOOKS_AT_ONCE else REST / 4)
