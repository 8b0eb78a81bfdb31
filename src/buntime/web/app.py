"""The web application: its routes, and what surrounds every request."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from buntime.config import Config
from buntime.daemon.room import Room
from buntime.errors import BuntimeError, Unavailable
from buntime.operations.assembly import Operations
from buntime.operations.entrance import noting_entries
from buntime.ports import AnotherHost
from buntime.rates import Rates
from buntime.web import carrying, failures, openapi
from buntime.web.api import (
    account,
    clients,
    contexts,
    events,
    execution,
    file_streams,
    files,
    hosts,
    images,
    previews,
    processes,
    search,
    server,
    services,
    sessions,
    snapshots,
    terminal,
    usage,
    watch,
    webhooks,
)
from buntime.web.api import metrics as session_metrics
from buntime.web.assets import AssetResource, copy_script
from buntime.web.auth import Authenticator
from buntime.web.bodies import BodyMemory
from buntime.web.built_clients import NOT_BUILT, ClientFile
from buntime.web.cors import CrossOrigin
from buntime.web.exchange import ClientLeft, Exchange, open_exchange
from buntime.web.logs import log_request
from buntime.web.metrics import Metrics
from buntime.web.operation import Operation, Page
from buntime.web.resource import PublicResource, Resource, World
from buntime.web.streaming import OpenStreams
from buntime.web.unknown import Unknown
from buntime.web.viewer import assets
from buntime.web.websocket import refusing

log = structlog.get_logger()

OPERATIONS: tuple[Operation, ...] = (
    *sessions.OPERATIONS,
    *snapshots.OPERATIONS,
    *images.OPERATIONS,
    *account.OPERATIONS,
    *events.OPERATIONS,
    *usage.OPERATIONS,
    *session_metrics.OPERATIONS,
    *webhooks.OPERATIONS,
    *previews.OPERATIONS,
    *execution.OPERATIONS,
    *processes.OPERATIONS,
    *services.OPERATIONS,
    *contexts.OPERATIONS,
    *files.OPERATIONS,
    *file_streams.OPERATIONS,
    *search.OPERATIONS,
    *watch.OPERATIONS,
    *terminal.OPERATIONS,
    *hosts.OPERATIONS,
    *server.OPERATIONS,
)

TAKEN = frozenset(operation.path.split("/")[1] for operation in OPERATIONS)  # first parts of the API's paths

type Ready = Callable[[], Mapping[str, bool]]

CLIENT_LEFT = 499  # only in logs and metrics: the client got no answer


def _always_ready() -> Mapping[str, bool]:
    return {}


def create_app(
    operations: Operations,
    config: Config,
    *,
    metrics: Metrics | None = None,
    ready: Ready = _always_ready,
    clock: Callable[[], float] = time.time,
    streams: OpenStreams | None = None,
    files: Sequence[ClientFile] = NOT_BUILT,
    rates: Rates | None = None,
) -> ASGIApp:
    """The API as an ASGI application.

    `metrics` counts requests. `ready`: part → whether it works, for `/readyz`. `clock`: Unix seconds, for rate limits.
    `streams` lets the caller end all open streams when the server stops. `files`: what `/clients/` hands out.
    `rates` counts requests; by default, this host knows all of them.
    """
    authenticator = Authenticator(operations.identity, clock, rates)
    metrics = metrics or Metrics()
    world = World(operations, config, authenticator, metrics, BodyMemory(), streams or OpenStreams())
    pages = _pages(ready, files, config)
    paths = FixedPaths(_routes(world, pages), Unknown(authenticator, TAKEN))
    return Front(CrossOrigin(paths, config.origins) if config.origins else paths, metrics)


def openapi_pages() -> tuple[Page, ...]:
    """The public pages, for a description of the API without a running app."""
    return _pages(_always_ready, NOT_BUILT, Config())


def _pages(ready: Ready, files: Sequence[ClientFile], config: Config) -> tuple[Page, ...]:
    def describe(pages: tuple[Page, ...]) -> dict[str, Any]:
        return openapi.document(OPERATIONS, pages)

    return server.pages(ready, describe, config, clients.pages(files, config))


def _routes(world: World, pages: tuple[Page, ...]) -> list[BaseRoute]:
    """One route for each path. Fixed paths come first: `/sessions/{sessionId}` would match `/sessions/create` too."""
    by_path: dict[str, list[Operation]] = defaultdict(list)
    for operation in OPERATIONS:
        by_path[operation.path].append(operation)
    fixed_first = sorted(by_path, key=lambda path: "{" in path)
    return [
        *(Route(path, Resource(path, by_path[path], world)) for path in fixed_first),
        WebSocketRoute(terminal.PATH, terminal.TerminalSocket(world)),
        *(Route(page.path, PublicResource(page)) for page in pages),
        *(Route(asset.path, AssetResource(asset)) for asset in (*assets(), copy_script())),
    ]


class FixedPaths:
    """Finds fixed paths in a table. A router tries one path after the other, which it does here for all others."""

    def __init__(self, routes: Sequence[BaseRoute], unknown: ASGIApp) -> None:
        self._fixed = {route.path: route.app for route in routes if isinstance(route, Route) and "{" not in route.path}
        self._router = Router(list(routes), redirect_slashes=False, default=unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fixed = self._fixed.get(scope["path"]) if scope["type"] == "http" else None
        await (fixed or self._router)(scope, receive, send)


class Front:
    """Wraps every request: gives it an id, turns failures into answers, logs it and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._room = Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["method"], send = "GET", refusing(send)
        exchange = open_exchange(scope)
        try:
            with self._room.for_one_request():
                await self._answer(exchange, receive, send)
        finally:
            seconds = time.perf_counter() - exchange.started
            if exchange.carried_to is not None:
                self._metrics.carried(exchange.route)
            elif not exchange.comes_again:
                self._metrics.count(exchange.route, exchange.method, exchange.status, exchange.code, seconds)
            if not exchange.comes_again:
                log_request(exchange)

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            with noting_entries(may_guess=exchange.hops == 0) as entries:
                await self._app(exchange.scope, receive, watched)
            return
        except ClientLeft:
            exchange.status = CLIENT_LEFT
            return
        except BuntimeError as failed:
            failure: BuntimeError = failed
        except AnotherHost as elsewhere:
            refusal = carrying.refusal_of(elsewhere, exchange, entries)
            if refusal is None:
                await carrying.send_on(elsewhere, exchange, watched)
                return
            failure = refusal
        except asyncio.CancelledError:  # the server stops and its grace period is over
            failure = Unavailable("The server is stopping and did not finish the request.", 5)
        except Exception:  # the boundary of a request: the log gets the details, the client does not
            log.exception("internal_error", request=exchange.request_id.decode("ascii"), route=exchange.route)
            failure = failures.bare()
        try:
            if begun:  # the answer is incomplete, so the server cuts the connection
                raise failure
            await _tell(failure, exchange, send)
        finally:
            # The failure's traceback refers to this frame, and this frame to the failure. The cycle would keep the
            # request's body in memory until the garbage collector runs.
            del failure


async def _tell(failure: BuntimeError, exchange: Exchange, send: Send) -> None:
    try:
        await exchange.send(failures.reply_to(failure), send)
    except Unavailable as no_room:  # for the large output that some failures carry
        await exchange.send(failures.reply_to(no_room), send)
    except ClientLeft:
        exchange.status = CLIENT_LEFT
