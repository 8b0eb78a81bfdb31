"""`buntime purge`: leaves this host as if the server had never been there."""

import asyncio
import shutil

import uvloop

from buntime.config import Config
from buntime.daemon.logs import configure_logs
from buntime.daemon.only_server import only_server
from buntime.daemon.tasks import Tasks
from buntime.edge.process import stop_left_over
from buntime.sandboxes import opening
from buntime.sandboxes.guest.client import new_http_client


def purge(config: Config) -> None:
    """Removes every session, and everything else that servers of this data directory made on the host."""
    if not config.data_dir.exists():
        return
    configure_logs("warning")
    with only_server(config), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_purge(config))
        for entry in list(config.data_dir.iterdir()):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


async def _purge(config: Config) -> None:
    async with new_http_client() as http, Tasks() as tasks:
        await opening.purge(config, tasks, http)
        await asyncio.to_thread(stop_left_over, config.run_dir / "edge")
