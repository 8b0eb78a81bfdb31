"""Everything that this server answers over HTTP, each part on a socket of its own."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from buntime.config import Config
from buntime.fleet.rates import FleetRates
from buntime.operations.assembly import Operations
from buntime.operations.previews import Previews
from buntime.web.api.server import metrics_app
from buntime.web.app import create_app
from buntime.web.built_clients import ClientFile
from buntime.web.edge_app import create_edge_app
from buntime.web.metrics import Metrics
from buntime.web.serving import served
from buntime.web.streaming import OpenStreams


@asynccontextmanager
async def web(
    config: Config,
    operations: Operations,
    previews: Previews,
    metrics: Metrics,
    ready: Callable[[], Mapping[str, bool]],
    files: Sequence[ClientFile],
    rates: FleetRates | None = None,
) -> AsyncIterator[None]:
    """Serves the API, the edge's questions about previews and the operator's metrics within the block. Leaving it ends
    open streams first. `ready`: part → whether it works, for `/readyz`. `files`: what `/clients/` hands out.
    `rates`: where there are other hosts."""
    streams = OpenStreams()
    api = create_app(operations, config, metrics=metrics, ready=ready, streams=streams, files=files, rates=rates)
    counts = rates.count_here if rates else None
    edge_app = create_edge_app(previews, api, metrics, secure=bool(config.domain), counts=counts)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(operations.idempotency.cut)
        await stack.enter_async_context(served(api, config.api_socket, "api"))
        stack.callback(streams.end)
        await stack.enter_async_context(served(edge_app, config.edge_socket, "previews"))
        await stack.enter_async_context(served(metrics_app(metrics), config.metrics_socket, "metrics"))
        yield
