"""A receiver of webhooks: a real HTTP server that answers as a test says."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Got:
    headers: Mapping[str, str]
    body: bytes
    request: web.Request

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["Webhook-Id"]


type Answering = Callable[[Got], Awaitable[web.StreamResponse | int]]


async def well(_: Got) -> int:
    return 204


@dataclass(slots=True)
class Receiver:
    port: int = 0
    answer: Answering = well
    got: list[Got] = field(default_factory=list)
    scheme: str = "http"

    def url(self, host: str = "127.0.0.1", path: str = "/hook") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.got]

    async def take(self, request: web.Request) -> web.StreamResponse:
        got = Got(dict(request.headers), await request.read(), request)
        self.got.append(got)
        answer = await self.answer(got)
        return web.Response(status=answer) if isinstance(answer, int) else answer


@asynccontextmanager
async def receiving(answer: Answering = well, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer=answer, scheme="https" if tls else "http")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def hang(_: Got) -> int:
    await asyncio.sleep(3600)
    return 204


def always(status: int) -> Answering:
    async def answer(_: Got) -> int:
        return status

    return answer
