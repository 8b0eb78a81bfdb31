"""Requests that a busy server refuses for now, and that are sent again when it says so."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.client import Refused

PATIENCE_SECONDS = 120.0


async def with_patience[T](ask: Callable[[], Awaitable[T]], patience: float = PATIENCE_SECONDS) -> tuple[T, int]:
    """Asks again after the `Retry-After` of each 503. Returns the response, and the number of 503s.

    Raises Refused with any other response, with a 503 that has no `Retry-After`, and after `patience` seconds.
    """
    deadline, refusals = time.monotonic() + patience, 0
    while True:
        try:
            return await ask(), refusals
        except Refused as refused:
            wait = refused.retry_after
            if refused.status != 503 or wait is None or time.monotonic() + wait > deadline:
                raise
            refusals += 1
            await asyncio.sleep(wait)
