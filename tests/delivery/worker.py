"""Delivers from a store until it is killed: `python -m tests.delivery.worker DIRECTORY`."""

import asyncio
import sys
import time
from ipaddress import ip_network
from pathlib import Path

from buntime.delivery.delivering import delivering
from buntime.lifecycle.sealing import Vault
from buntime.operations.signing import Signing
from buntime.stores.sqlite.store import SqliteStore


async def deliver(directory: Path) -> None:
    store = await SqliteStore.open(directory / "store.db")
    async with delivering(store, Signing(Vault(bytes(32))), (ip_network("127.0.0.0/8"),), time.time, lambda _: None):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(deliver(Path(sys.argv[1])))
