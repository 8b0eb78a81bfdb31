"""A real Prometheus with the configuration of deploy/monitoring."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.ports import free_port
from tests.waiting import PATIENCE, REST

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
DOCUMENTED_TARGET = "127.0.0.1:9273"


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str
    http: aiohttp.ClientSession

    async def ask(self, path: str, **query: str) -> Any:
        """Returns what is in `data`. Raises AssertionError with Prometheus' own words."""
        async with self.http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            said = await answer.json()
        assert said["status"] == "success", f"{query}: {said['error']}"
        return said["data"]

    async def query(self, expression: str) -> Sequence[Any]:
        found: Sequence[Any] = (await self.ask("query", query=expression))["result"]
        return found

    async def until_scraped(self) -> None:
        for _ in range(int(PATIENCE / REST)):
            try:
                if any(sample["value"][1] == "1" for sample in await self.query("up")):
                    return
            except (OSError, aiohttp.ClientError):  # it starts
                pass
            await asyncio.sleep(REST)
        raise AssertionError(f"not scraped: {await self.ask('targets')}")


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Prometheus]:
    """Runs within the block and has scraped the target, HOST:PORT, when the block begins."""
    shutil.copytree(MONITORING, directory, dirs_exist_ok=True)
    config = directory / "prometheus.yml"
    text = config.read_text()
    assert DOCUMENTED_TARGET in text
    config.write_text(text.replace(DOCUMENTED_TARGET, target).replace("15s", "1s"))
    port = free_port()
    options = (f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}", "--log.level=error")
    process = await asyncio.create_subprocess_exec("prometheus", *options, f"--web.listen-address=127.0.0.1:{port}")
    try:
        async with aiohttp.ClientSession() as http:
            running = Prometheus(f"http://127.0.0.1:{port}", http)
            await running.until_scraped()
            yield running
    finally:
        process.terminate()
        await process.wait()
