"""The server of another checkout, started by its own benchmark, beside the one that is measured."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bench.client import Client
from bench.context import Context
from bench.server import NOTHING, NotStarted, Server
from buntime.config import from_environment

START_SECONDS = 300.0  # the checkout may make its image first
STOP_SECONDS = 120.0
# The other checkout's Python runs this in that checkout. The server ends when nobody holds the pipe any more.
PROGRAM = """
import json, sys
from bench.server import started
with started(int(sys.argv[1]), lambda line: print(line, file=sys.stderr, flush=True)) as server:
    told = {"url": server.url, "key": server.key, "data": str(server.config.data_dir)}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def beside(context: Context, checkout: Path) -> AsyncIterator[Context]:
    """Yields the same context with the server of the checkout, whose `scripts/setup` has run. Raises NotStarted."""
    python, size = checkout / ".venv/bin/python", context.server.pool_size
    if not python.exists():
        raise NotStarted(f"{checkout} is not a checkout that scripts/setup has prepared")
    command = (str(python), "-c", PROGRAM, str(size))
    process = await asyncio.create_subprocess_exec(*command, cwd=checkout, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            told = await process.stdout.readline()
        if not told:
            raise NotStarted(f"the server of {checkout} did not start")
        server = _server(context.server, json.loads(told))
        async with Client(server.url, server.key, server.config.metrics_socket) as client:
            yield replace(context, server=server, client=client)
    finally:
        process.stdin.close()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def commit(checkout: Path) -> str:
    """Returns the short name of the checkout's commit."""
    command = ("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    said, _ = await process.communicate()
    return said.decode().strip()


def _server(like: Server, told: dict[str, str]) -> Server:
    """What differs from this checkout's server, as far as figures ask. An old one has no number of started Buns."""
    config = from_environment(_settings() | {"BUNTIME_DATA_DIR": told["data"]})
    return replace(like, url=told["url"], key=told["key"], config=config, settings=NOTHING, pool_prepared=0)


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("BUNTIME_")}
