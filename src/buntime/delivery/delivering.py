"""The loop that finds what is to be delivered. It runs for as long as the server.

Deliveries are rows of the store, which come with their events. So nothing is lost when the server is killed: what was
not settled is due, and is sent again.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from buntime.daemon.tasks import Tasks
from buntime.delivery.courier import Courier
from buntime.delivery.lanes import Lanes
from buntime.delivery.looking import Looks
from buntime.errors import BuntimeError
from buntime.operations.signing import Signing
from buntime.ports import News, Store
from buntime.webhook import DeliveryState, Network

if TYPE_CHECKING:  # what sends is imported when there is something to send
    from buntime.delivery.connecting import Resolve
    from buntime.delivery.posting import Post

log = structlog.get_logger()

LATER_SECONDS = 0.003  # after news, so that the answer to the request that made them comes first
LOOK_SECONDS = 1.0  # between two looks without news: attempts that are due again, and events of other processes
PAUSE_SECONDS = 5.0  # of a webhook after an error of our own, such as a store that cannot write; doubles with each
LONGEST_PAUSE = 600.0


class Delivering:
    def __init__(
        self,
        store: Store,
        open_posts: "Callable[[], Awaitable[AbstractAsyncContextManager[Post]]]",
        clock: Callable[[], float],
        count: Callable[[DeliveryState], None],
        has_duty: Callable[[], bool],
    ) -> None:
        """`open_posts`: called when something is first due. `clock`: Unix seconds. `count`: called after each attempt,
        with what the delivery is after it. `has_duty`: whether this host is the one that delivers."""
        self._store = store
        self._open_posts = open_posts
        self._clock = clock
        self._count = count
        self._has_duty = has_duty
        self._lanes = Lanes()
        self._looks = Looks()
        self._stored = asyncio.Event()
        self._couriers: dict[str, Courier] = {}  # webhook id → who delivers to it
        self._known: dict[str, News] = {}  # webhook id → news that a courier was told
        self._failures: dict[str, int] = {}  # webhook id → errors of our own in a row
        self._later: asyncio.TimerHandle | None = None  # sets `_stored`
        store.on_stored(self._has_news)

    async def run(self) -> None:
        post: Post | None = None
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            while True:
                self._stored.clear()
                for webhook_id in await self._with_news():
                    if post is None:
                        post = await stack.enter_async_context(await self._open_posts())
                    self._send(group, post, webhook_id)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._stored.wait()

    def _has_news(self) -> None:
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(LATER_SECONDS, self._look)

    def _look(self) -> None:
        self._later = None
        self._stored.set()

    async def _with_news(self) -> Sequence[str]:
        """Webhooks whose courier does not know what is due."""
        if not self._has_duty():
            self._known = {}
            return ()
        try:
            async with self._looks.look():
                waiting = await self._store.waiting_webhooks(int(self._clock()))
        except BuntimeError as failed:  # the next look sees them
            log.warning("webhooks_not_looked_for", reason=failed.message)
            return ()
        known, self._known = self._known, dict(waiting)
        return [webhook_id for webhook_id, news in waiting.items() if known.get(webhook_id) != news]

    def _send(self, group: asyncio.TaskGroup, post: "Post", webhook_id: str) -> None:
        known = self._couriers.get(webhook_id)
        if known is not None:
            known.more.set()
            return
        parts = (self._store, post, self._lanes, self._looks, self._clock, self._count, self._has_duty)
        courier = Courier(webhook_id, *parts, careful=webhook_id in self._failures)
        self._couriers[webhook_id] = courier
        group.create_task(self._run(webhook_id, courier), name=f"deliveries to {webhook_id}")

    async def _run(self, webhook_id: str, courier: Courier) -> None:
        try:
            await courier.run()
            self._failures.pop(webhook_id, None)
        except Exception:  # the boundary of a task: one webhook's error must not end the server
            log.exception("delivery_failed", webhook=webhook_id)
            failures = 1 if courier.settles else self._failures.get(webhook_id, 0) + 1
            self._failures[webhook_id] = failures
            await asyncio.sleep(pause_after(failures))
            courier.more.set()
        finally:
            del self._couriers[webhook_id]
            if courier.more.is_set() or courier.again:  # after its last look
                self._known.pop(webhook_id, None)
                self._stored.set()


def pause_after(failures: int) -> float:
    """Seconds, after so many failures in a row."""
    return min(LONGEST_PAUSE, PAUSE_SECONDS * 2.0 ** min(failures - 1, 20))


def _always() -> bool:
    return True


@asynccontextmanager
async def delivering(
    store: Store,
    signing: Signing,
    networks: Sequence[Network],
    clock: Callable[[], float],
    count: Callable[[DeliveryState], None],
    trusted: ssl.SSLContext | None = None,
    resolve: "Resolve | None" = None,
    has_duty: Callable[[], bool] = _always,
) -> AsyncIterator[None]:
    """Delivers within the block. Its end cancels attempts that are under way, and settles none of them. Only then are
    connections closed. See `posting` and `Delivering` for what it takes."""

    async def open_posts() -> "AbstractAsyncContextManager[Post]":
        """Imports in a thread: an HTTP client takes as long as hundreds of requests."""
        await asyncio.to_thread(import_module, "buntime.delivery.posting")
        from buntime.delivery.posting import posting

        return posting(signing, networks, clock, trusted, resolve)

    async with Tasks() as tasks:
        tasks.start_daemon(Delivering(store, open_posts, clock, count, has_duty).run(), "webhooks")
        yield
