"""Keeps the pauses of Python's garbage collector short, however many sessions there are.

A full collection looks at every object of the server and stops it for that long. What has lived through one is put
aside, so that the next looks only at what came since. Once an hour it looks at all, because what was put aside may have
become garbage.
"""

import asyncio
import gc

SET_ASIDE_SECONDS = 60.0
LOOK_AT_ALL = 60  # one of so many collections


async def keep_collected() -> None:
    """For ever. The first collection comes when the server has long started."""
    turn = 0
    while True:
        await asyncio.sleep(SET_ASIDE_SECONDS)
        if turn % LOOK_AT_ALL == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        turn += 1
