"""What a deep sleep leaves in the archive, and when; and the first answer after it."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Protocol

from bench import trees
from bench.baselines import CODE
from bench.client import Client, Refused
from bench.context import MS, Context

CHANGED_MB = 1
CHANGE: Final = f"head -c {CHANGED_MB}M /dev/urandom > changed"
LIMITS: Final = {"cpu": 2, "disk": 4096}  # of the sessions, which fill themselves
SAVED, UNDER_WAY = "buntime_archive_saved_total", "buntime_archive_transfers"
OBJECTS, BYTES = ('buntime_archive_objects_total{kind="%s"}', 'buntime_archive_objects_bytes_total{kind="%s"}')
FULL, INCREMENT = "full", "increment"
LOOK_SECONDS, QUIET_LOOKS = 0.02, 15
ARCHIVED_SECONDS, EVICTED_SECONDS, RESTORED_SECONDS = 120.0, 60.0, 120.0
NOT_YET = 503


class Sleeper(Protocol):
    """A client, as far as `deep_sleep` uses it."""

    async def sleep(self, session: str, depth: str) -> None: ...

    async def gauge(self, name: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Sleep:
    answered: float  # milliseconds until the answer of `POST …/sleep`, which waits for the archive, but only a while
    archived: float  # milliseconds until the store named the object
    size: int  # bytes of the object, and of the full one if it was folded then
    full: bool  # or only an increment


async def deep_sleep(client: Sleeper, session: str) -> Sleep:
    """Puts the session into deep sleep and waits until it is archived, and its chain folded if that is due. No other
    session may be archived meanwhile."""
    saved, full, size = await client.gauge(SAVED), await client.gauge(OBJECTS % FULL), await _bytes(client)
    start = time.perf_counter()
    await client.sleep(session, "deep-sleep")
    answered = archived = time.perf_counter() - start
    async with asyncio.timeout(ARCHIVED_SECONDS):
        while await client.gauge(SAVED) == saved:
            await asyncio.sleep(LOOK_SECONDS)
            archived = time.perf_counter() - start
        quiet = 0
        while quiet < QUIET_LOOKS:  # between the two, nothing is under way
            quiet = 0 if await client.gauge(UNDER_WAY) else quiet + 1
            await asyncio.sleep(LOOK_SECONDS)
    is_full = await client.gauge(OBJECTS % FULL) > full
    return Sleep(answered * MS, archived * MS, await _bytes(client) - size, is_full)


async def _bytes(client: Sleeper) -> int:
    return await client.gauge(BYTES % FULL) + await client.gauge(BYTES % INCREMENT)


async def evicted(context: Context) -> None:
    """Returns when no session in deep sleep has a volume on the host of this server, which keeps none."""
    async with asyncio.timeout(EVICTED_SECONDS):
        while await context.client.gauge("buntime_cached_volumes"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.1)
    await asyncio.to_thread(trees.let_the_kernel_clean, context.server)


async def first_execute(client: Client, session: str) -> None:
    """Executes as a patient client does: after a few seconds a request answers 503, while the restore goes on."""
    async with asyncio.timeout(RESTORED_SECONDS):
        while True:
            try:
                await client.execute(session, code=CODE)
                return
            except Refused as refused:
                if refused.status != NOT_YET:
                    raise
