"""Notices clients that leave, and ends work that nobody waits for any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from buntime.daemon.tasks import cancel_and_wait
from buntime.web.exchange import ClientLeft


async def disconnected(receive: Receive) -> None:
    """Returns when the client has left. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected[T](work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Returns the result of `work`. If the client leaves before its end, cancels it and raises ClientLeft."""
    task = asyncio.create_task(work, name="answer")
    watch = asyncio.create_task(disconnected(receive), name="disconnect watch")
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            await cancel_and_wait(task)
        del task  # its failure refers to this frame; without the cycle it is freed with its last user
