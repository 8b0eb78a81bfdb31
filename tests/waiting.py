"""Waits for a condition, so that tests need not guess how long something takes."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds; a guard against a hang
REST = 0.02  # seconds between two checks
LOOKS_AT_ONCE = 100  # checks without a pause: work in the test's own event loop needs turns, not time


def until(seen: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Calls `seen` until it returns true. `what` describes the condition in the error message."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(REST)


async def eventually(seen: Callable[[], object], what: str = "it", seconds: float = PATIENCE) -> None:
    """Does the same as `until` without blocking the event loop."""
    deadline, looks = time.monotonic() + seconds, 0
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        looks += 1
        await asyncio.sleep(0 if looks < LOOKS_AT_ONCE else REST / 4)
