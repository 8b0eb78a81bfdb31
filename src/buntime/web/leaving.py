"""Notices clients that leave, and ends work that nobody waits for any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from buntime.web.exchange import ClientLeft


async def disconnected(receive: Receive) -> None:
    """Returns when the client has left. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected[T](work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Returns the result of `work`. If the client leaves before its end, cancels it and raises ClientLeft."""
    worker = asyncio.current_task()
    assert worker is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        await disconnected(receive)
        has_left = True
        worker.cancel()

    watching = asyncio.create_task(watch(), name="disconnect watch")
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and worker.uncancel() == 0:  # otherwise, somebody else has cancelled it too
            raise ClientLeft from None
        raise
    finally:
        watching.cancel()
