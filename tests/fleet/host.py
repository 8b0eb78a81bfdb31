"""A host of a fleet without sessions, as programs: its server, its watchdog, and what stands for a sandbox.

python -m tests.fleet.host server|watchdog|sandbox SETTINGS
"""

import asyncio
import json
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from psycopg_pool import AsyncConnectionPool

from buntime.daemon.listening import Listening
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.guard import Guard
from buntime.fleet.holding import Holding
from buntime.fleet.lease_file import LeaseFile
from buntime.fleet.members import Description, Membership
from buntime.fleet.postgres.members import PostgresMembers
from buntime.fleet.watchdog import watch
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.kernel.freezing import group_above
from tests.fleet.networks import EDGE, HOST, PORT

NAME = "lost"
PAUSE = 0.005  # seconds between two signs of life of a sandbox
LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Settings:
    conninfo: str
    instance: str
    directory: str
    own_watchdog: bool = True  # the server starts it

    def command(self, part: str) -> list[str]:
        return [sys.executable, "-m", "tests.fleet.host", part, json.dumps(asdict(self))]

    @property
    def lease_file(self) -> Path:
        return Path(self.directory) / "lease"

    @property
    def compared(self) -> Path:
        """A line for each comparison of epochs: when (boot clock), and the incarnation."""
        return Path(self.directory) / "compared"

    @property
    def acts(self) -> Path:
        """Exists while the server believes that it may act."""
        return Path(self.directory) / "acts"

    def fence(self) -> HostFence:
        return HostFence(self.instance, Listening((HOST.world,), EDGE))


async def serve(settings: Settings) -> None:
    async def compare(me: Membership) -> None:
        with settings.compared.open("a") as file:
            file.write(f"{boot_seconds()} {me.incarnation}\n")

    async with AsyncConnectionPool(settings.conninfo, min_size=1, max_size=4, open=False) as pool:
        file = LeaseFile(settings.lease_file)
        guard = Guard(settings.command("watchdog") if settings.own_watchdog else (), file)
        description = Description("127.0.0.1:7000", "1")
        parts = (guard, file, settings.fence())
        holding = Holding(PostgresMembers(pool), NAME, description, *parts, compare, lambda: {})
        async with asyncio.TaskGroup() as group:
            group.create_task(holding.run())
            while True:
                if holding.may_act():
                    settings.acts.touch()
                else:
                    settings.acts.unlink(missing_ok=True)
                await asyncio.sleep(LOOK)


def show_life() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            sender.sendto(b"alive", (HOST.sandbox, PORT))
            time.sleep(PAUSE)


def main(part: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    if part == "server":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    elif part == "watchdog":
        watch(settings.lease_file, settings.fence(), group_above(settings.instance))
    else:
        show_life()


if __name__ == "__main__":
    main(*sys.argv[1:])
