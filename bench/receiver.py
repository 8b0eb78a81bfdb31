"""Receives webhooks for the figures about them."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import web


@dataclass(slots=True)
class Receiver:
    """`failing`: the share of events that get 500 at first. When it is asked again, it takes them."""

    failing: float = 0.0
    port: int = 0
    first: dict[str, float] = field(default_factory=dict)  # event id → when it came first, by `time.perf_counter`
    order: dict[str, list[int]] = field(default_factory=dict)  # session → numbers of the events that it accepted
    requests: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(1))
    _accepted: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def accepted(self) -> int:
        """How many events it has taken, each counted once."""
        return len(self._accepted)

    async def take(self, request: web.Request) -> web.Response:
        came, body = time.perf_counter(), await request.read()
        event_id = request.headers.get("Webhook-Id", "")
        self.requests += 1
        is_first = event_id not in self.first
        self.first.setdefault(event_id, came)
        if is_first and self._random.random() < self.failing:
            return web.Response(status=500)
        if event_id and event_id not in self._accepted:
            self._accepted.add(event_id)
            event = msgspec.json.decode(body)
            self.order.setdefault(event["sessionId"] or "", []).append(event["data"].get("number", 0))
        return web.Response(status=204)


@asynccontextmanager
async def receiving(failing: float = 0.0) -> AsyncIterator[Receiver]:
    receiver = Receiver(failing)
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()
