"""The loop that finds what is to be delivered. It runs for as long as the server.

Deliveries are rows of the store, which come with their events. So nothing is lost when the server is killed: what was
not settled is due, and is sent again.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from buntime.delivery.courier import Courier
from buntime.delivery.lanes import Lanes
from buntime.delivery.posting import Post
from buntime.ports import Store

log = structlog.get_logger()

LOOK_SECONDS = 1.0  # between two looks without news: attempts that are due again, and events of other processes
SHARE = 10  # looks take at most one tenth of the loop's time
PAUSE_SECONDS = 5.0  # of a webhook after an error of our own, such as a store that cannot write


class Delivering:
    def __init__(self, store: Store, post: Post, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._store = store
        self._post = post
        self._clock = clock
        self._lanes = Lanes()
        self._news = asyncio.Event()
        self._couriers: dict[str, Courier] = {}  # webhook id → who delivers to it
        store.on_stored(self._news.set)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                began = loop.time()
                for webhook_id in await self._store.waiting_webhooks(int(self._clock())):
                    self._send(group, webhook_id)
                await asyncio.sleep((loop.time() - began) * (SHARE - 1))
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()

    def _send(self, group: asyncio.TaskGroup, webhook_id: str) -> None:
        known = self._couriers.get(webhook_id)
        if known is not None:
            known.more.set()
            return
        courier = Courier(webhook_id, self._store, self._post, self._lanes, self._clock)
        self._couriers[webhook_id] = courier
        group.create_task(self._run(webhook_id, courier), name=f"deliveries to {webhook_id}")

    async def _run(self, webhook_id: str, courier: Courier) -> None:
        try:
            await courier.run()
        except Exception:  # the boundary of a task: one webhook's error must not end the server
            log.exception("delivery_failed", webhook=webhook_id)
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            del self._couriers[webhook_id]
