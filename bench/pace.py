"""Small works one at a time, each after a pause, as somebody asks who thinks between two requests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

PAUSE_SECONDS = 0.04
# What a request does on, and how many milliseconds it took.
type Work[T] = Callable[[T], Awaitable[float]]


async def by_turns[T](turns: int, things: Sequence[T], works: Mapping[str, Work[T]]) -> dict[str, list[float]]:
    """Each work on each thing, so many times: the works take turns, so that what else the machine does meets all of
    them, and so do the things, so that none comes again before what it does behind an answer is done."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns):
        for thing in things:
            for name in works if turn % 2 == 0 else reversed(list(works)):
                await asyncio.sleep(PAUSE_SECONDS)
                taken[name].append(await works[name](thing))
    return taken
