"""Small works one at a time, each after a pause, as somebody asks who thinks between two requests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

PAUSE_SECONDS = 0.04
# What a request does on, and how many milliseconds it took.
type Work[T] = Callable[[T], Awaitable[float]]


async def by_turns[T](turns: int, things: Sequence[T], works: Mapping[str, Work[T]]) -> dict[str, list[float]]:
    """Each work on each thing, so many times. The works take turns, so that what else the machine does meets all of
    them, each on another thing: none is asked again before what it does behind an answer is done."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    apart = max(len(things) // len(works), 1)
    for turn in range(turns):
        for place in range(len(things)):
            next_ones = [(name, things[(place + number * apart) % len(things)]) for number, name in enumerate(works)]
            for name, thing in next_ones if turn % 2 == 0 else reversed(next_ones):
                await asyncio.sleep(PAUSE_SECONDS)
                taken[name].append(await works[name](thing))
    return taken
