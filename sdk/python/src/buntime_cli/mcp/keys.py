"""Which keys the buntime server knows. It is asked before anything is stored for a key."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from buntime_sdk import AsyncBuntime, BuntimeError, RateLimitExceeded, Unauthorized

from buntime_cli.mcp.conversations import hashed

ASK_SECONDS = 10.0  # to wait for the server's answer
KNOWN_SECONDS = 60.0  # how long an answer counts
MOST = 10_000  # remembered answers

Ask: TypeAlias = Callable[[str], Awaitable[None]]  # raises BuntimeError


class Keys:
    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._told: OrderedDict[str, tuple[float, Unauthorized | None]] = OrderedDict()  # by hashed key

    async def refusal(self, key: str) -> BuntimeError | None:
        """None for a known key, Unauthorized for an unknown one, another error if the server does not say."""
        name = hashed(key)
        told_at, refused = self._told.get(name, (None, None))
        if told_at is not None and self._clock() - told_at <= KNOWN_SECONDS:
            return refused
        try:
            await self._ask(key)
        except Unauthorized as unknown:
            refused = unknown.with_traceback(None)  # the traceback would keep the request's objects in memory
        except BuntimeError as failure:
            return failure
        else:
            refused = None
        self._told[name] = self._clock(), refused
        self._told.move_to_end(name)
        while len(self._told) > MOST:
            self._told.popitem(last=False)
        return refused


def asking(url: str | None) -> Ask:
    """Asks the server at `url`; None: where the SDK finds it."""

    async def ask(key: str) -> None:
        async with AsyncBuntime(key, url, timeout=ASK_SECONDS, max_retries=0) as client:
            try:
                await client.sessions.list(page_size=1).page()
            except RateLimitExceeded:
                if client.rate_limit is None:  # the limit of unknown keys; a known key's limit comes with numbers
                    raise

    return ask
