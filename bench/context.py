"""What a figure uses: the server, a client, the machine's baselines, and sessions that end with the figure."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import baselines, machine
from bench.client import Client
from bench.report import Baseline
from bench.scale import Scale
from bench.server import NOTHING, Say, Server, started
from bench.statistics import summarise
from buntime.config import Config

SETTLE_SECONDS = 240.0
DELETES_AT_ONCE = 4
MS = 1000.0


class NotSettled(Exception):
    """The server did not come to rest in time. The message says what it waited for."""


@dataclass(frozen=True, slots=True)
class Context:
    server: Server
    client: Client
    bun: baselines.Bun
    scale: Scale
    say: Say
    before: Path | None = None  # a checkout of an earlier commit, to compare with

    async def bun_runs(self) -> list[float]:
        """Returns the milliseconds of `bun -e` on the host, one run at a time. Call it close to the measurement."""
        return await self._bun_runs(self.scale.baseline_runs)

    async def bun_run(self) -> float:
        """Returns the milliseconds of one run, for a figure that takes turns."""
        return (await self._bun_runs(1))[0]

    async def _bun_runs(self, count: int) -> list[float]:
        times = await asyncio.to_thread(baselines.timed, self.bun.run, count)
        return [seconds * MS for seconds in times]

    async def pool_filled(self) -> None:
        """Returns when the pool is full and Bun has started in as many as it should. Raises NotSettled."""
        deadline = time.monotonic() + SETTLE_SECONDS
        wanted = {"buntime_pool_parked": self.server.pool_size}
        if self.server.pool_prepared:
            wanted["buntime_pool_prepared"] = self.server.pool_prepared
        while any([await self.client.gauge(name) < number for name, number in wanted.items()]):
            if time.monotonic() > deadline:
                raise NotSettled("the pool is not full")
            await asyncio.sleep(0.1)

    async def settled(self, live: int = 0) -> None:
        """Returns when the pool is full, as `pool_filled`, and deleted sessions are gone completely. Raises NotSettled.

        `live`: the number of sessions that should exist.
        """
        await self.pool_filled()
        deadline = time.monotonic() + SETTLE_SECONDS
        wanted = (self.server.pool_size, live, self.server.pool_size + live)
        while True:
            pool = await self.client.gauge("buntime_pool_parked")
            serving = await self.client.gauge("buntime_sandboxes")
            found = (pool, serving, len(machine.sandboxes(self.server.config.instance)))
            if found == wanted:
                return
            if time.monotonic() > deadline:
                raise NotSettled(f"parked, serving and on the host are {found}, not {wanted}")
            await asyncio.sleep(0.2)


class Sessions:
    """The sessions that one figure creates."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ids: list[str] = []

    async def create(self, **fields: Any) -> float:
        """Creates a session and returns the milliseconds until the response."""
        start = time.perf_counter()
        session = await self._client.create(**fields)
        spent = time.perf_counter() - start
        self.ids.append(session)
        return spent * MS

    async def create_many(self, count: int, at_once: int = 4, **fields: Any) -> None:
        await each(range(count), lambda _: self.create(**fields), at_once)

    async def delete(self, session: str) -> None:
        self.ids.remove(session)
        await self._client.delete(session)

    async def delete_all(self) -> None:
        ids, self.ids = self.ids, []
        await each(ids, self._client.delete, DELETES_AT_ONCE)


@asynccontextmanager
async def beside(
    context: Context,
    pool_size: int,
    environ: Mapping[str, str] = NOTHING,
    fill: Callable[[Config], object] | None = None,
) -> AsyncIterator[Context]:
    """Yields the same context with another server, for a figure that needs other settings (see `server.started`).

    Starting and stopping it blocks the loop: nothing is measured meanwhile, and it cannot be interrupted. Raises
    NotStarted.
    """
    other = started(pool_size, context.say, environ, fill)
    with ThreadPoolExecutor(1) as thread:  # a separate one, because the server ends with the thread that started it
        server = thread.submit(other.__enter__).result()
        try:
            async with Client(server.url, server.key, server.config.metrics_socket) as client:
                yield replace(context, server=server, client=client)
        finally:
            thread.submit(other.__exit__, None, None, None).result()


@asynccontextmanager
async def sessions(context: Context, live_before: int = 0) -> AsyncIterator[Sessions]:
    """Yields sessions that are deleted at the end. The pool is full at the start."""
    await context.settled(live_before)
    made = Sessions(context.client)
    try:
        yield made
    finally:
        await made.delete_all()


async def each[T](things: Iterable[T], work: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Does the work on all things with `at_once` workers. The first failure stops it."""
    left = iter(list(things))

    async def worker() -> None:
        for thing in left:
            await work(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def stopwatch(work: Awaitable[object]) -> float:
    """Returns the milliseconds that the work took."""
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * MS


def bun_baseline(runs: list[float]) -> Baseline:
    return Baseline("bun -e on the host", summarise(runs))
