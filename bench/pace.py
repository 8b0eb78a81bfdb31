"""Does small works one at a time, each after a pause, like a client that thinks between two requests.

After a pause, each process on the way finds little of its own in the caches of a processor that others use too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

PAUSE_SECONDS = 0.04
# A work gets what to act on and returns its milliseconds.
type Work[T] = Callable[[T], Awaitable[float]]


async def by_turns[T](
    turns: int, things: Sequence[T], works: Mapping[str, Work[T]], pause: float = PAUSE_SECONDS
) -> dict[str, list[float]]:
    """Does each work on each thing, `turns` times, with so many seconds before each.

    The works take turns, so that other load on the machine affects all of them. Each acts on another thing than the
    last, so that the server has finished what it does after a response.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    apart = max(len(things) // len(works), 1)
    for turn in range(turns):
        for place in range(len(things)):
            next_ones = [(name, things[(place + number * apart) % len(things)]) for number, name in enumerate(works)]
            for name, thing in next_ones if turn % 2 == 0 else reversed(next_ones):
                await asyncio.sleep(pause)
                taken[name].append(await works[name](thing))
    return taken
