"""Requests that a busy server refuses for now, and that are sent again when it says so."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

from bench.client import Refused

PATIENCE_SECONDS = 120.0
BUSY = frozenset({503})
# Of a request with an idempotency key: it took too long, or its first try goes on
LATE = BUSY | {408, 409}
LATE_SECONDS = 1  # after a 408


async def with_patience[T](
    ask: Callable[[], Awaitable[T]], patience: float = PATIENCE_SECONDS, again: Collection[int] = BUSY
) -> tuple[T, int]:
    """Asks again after the `Retry-After` of each response with one of these statuses. Returns the response, and how
    often it had to ask again.

    Raises Refused with any other response, with one that has no `Retry-After`, and after `patience` seconds.
    """
    deadline, refusals = time.monotonic() + patience, 0
    while True:
        try:
            return await ask(), refusals
        except Refused as refused:
            wait = LATE_SECONDS if refused.status == 408 else refused.retry_after
            if refused.status not in again or wait is None or time.monotonic() + wait > deadline:
                raise
            refusals += 1
            await asyncio.sleep(wait)
