"""Fleets of the lab for figures, and beside them one host with SQLite that is reached in the same way."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from bench.client import Client, Refused
from bench.context import Context, NotSettled, each
from bench.server import ACCOUNT, NOTHING, NotStarted
from tests.fleet.lab.fleets import VOLUMES_GB, Fleet, fresh_fleet
from tests.fleet.lab.hosts import BUNTIME, Host, HostFailed
from tests.fleet.lab.places import MOST_HOSTS

SETTLE_SECONDS = 120.0
NOT_YET = 503
AT_ONCE = 4
SHARED = ("BUNTIME_STORE", "BUNTIME_ARCHIVE", "BUNTIME_MASTER_KEY_FILE", "BUNTIME_DATA_DIR", "BUNTIME_PEER")


@dataclass(frozen=True, slots=True)
class Place:
    """A server of the lab, with a client that has a key of its account."""

    host: Host
    client: Client
    pool_size: int

    @property
    def id(self) -> str:
        """Of the host in its fleet."""
        return (self.host.config.data_dir / "host-id").read_text().strip()

    def command(self, *arguments: str) -> str:
        """Runs a command of buntime on the host. Blocking. Raises HostFailed."""
        return self.host.output(str(BUNTIME), *arguments)

    async def filled(self) -> None:
        """Returns when the pool is full. Raises NotSettled."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while await self.client.gauge("buntime_pool_parked") < self.pool_size:
            if time.monotonic() > deadline:
                raise NotSettled(f"the pool of {self.host.name} is not full")
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Several:
    """A fleet that is ready."""

    fleet: Fleet
    places: Sequence[Place]

    @property
    def clients(self) -> Sequence[Client]:
        return [place.client for place in self.places]

    async def filled(self) -> None:
        for place in self.places:
            await place.filled()

    def owner(self, session: str) -> str:
        """The id of the host that has the session. Blocking."""
        ((host,),) = self.fleet.database.execute(f"SELECT host FROM sessions WHERE id = '{session}'")
        return str(host)

    async def create_on(self, place: Place, count: int, **fields: object) -> list[str]:
        """Makes sessions that this host has: the others take none meanwhile. Returns their ids."""
        others = [other for other in self.places if other is not place]
        for other in others:
            await self.mark(other, "draining")
        made = list[str]()

        async def create(_: int) -> None:
            made.append(await place.client.create(**fields))

        await each(range(count), create, AT_ONCE)
        for other in others:
            await self.mark(other, "active")
        strays = [session for session in made if await asyncio.to_thread(self.owner, session) != place.id]
        if strays:
            raise NotSettled(f"{len(strays)} of {count} sessions were made on another host")
        return made

    async def mark(self, place: Place, state: str) -> None:
        """Returns when every host of the fleet has seen it: they look each second."""
        verb = ("drain", place.id) if state == "draining" else ("resume", place.id)
        await asyncio.to_thread(place.command, "hosts", *verb)
        await asyncio.sleep(2.5)


@asynccontextmanager
async def several(
    context: Context, count: int, pool_size: int, settings: Mapping[str, str] = NOTHING
) -> AsyncIterator[Several]:
    """Yields a fleet of so many hosts whose pools are full. Raises NotStarted."""
    shared = {**_from_outside(), "BUNTIME_POOL_SIZE": str(pool_size), **settings}
    async with in_thread(fresh_fleet(shared)) as fleet, AsyncExitStack() as stack:
        context.say(f"Starting a fleet of {count} hosts ...")
        with _refusals():
            hosts = await asyncio.to_thread(fleet.up, count)
            key = await asyncio.to_thread(_key_of, hosts[0])
        places = [await _place(stack, host, key, pool_size) for host in hosts]
        made = Several(fleet, places)
        await made.filled()
        await asyncio.sleep(2.0)  # until every host has a report of every other one
        yield made


@asynccontextmanager
async def one_with_sqlite(context: Context, beside: Several, pool_size: int) -> AsyncIterator[Place]:
    """Yields a host on the switch of the fleet that belongs to none. Raises NotStarted."""
    fleet = beside.fleet
    images = os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images")
    usual = {"BUNTIME_IMAGES_DIR": images, "BUNTIME_VOLUMES_GB": str(VOLUMES_GB)}
    settings = {**usual, **_from_outside(), "BUNTIME_POOL_SIZE": str(pool_size)}
    host = Host(MOST_HOSTS, fleet.place, fleet.switch, fleet.directory, settings)
    context.say("Starting a host with SQLite ...")
    try:
        with _refusals():
            await asyncio.to_thread(host.start)
            key = await asyncio.to_thread(_key_of, host)
        async with AsyncExitStack() as stack:
            place = await _place(stack, host, key, pool_size)
            await place.filled()
            yield place
    finally:
        await asyncio.to_thread(host.remove)  # by its own settings


async def deep_sleep(fleet: Several, client: Client, session: str) -> None:
    """Returns when the session is in deep sleep and the archive has it. Raises NotSettled."""
    await client.sleep(session, "deep-sleep")
    deadline = time.monotonic() + SETTLE_SECONDS
    asked = f"SELECT archived FROM sessions WHERE id = '{session}' AND state = 'deep-sleep'"
    while await asyncio.to_thread(fleet.fleet.database.execute, asked) != [(True,)]:
        if time.monotonic() > deadline:
            raise NotSettled(f"{session} is not archived")
        await asyncio.sleep(0.1)


async def answered(client: Client, session: str, seconds: float, pause: float = 0.05) -> int:
    """Repeats an execute until it succeeds. Returns how often it did not.

    Raises Refused or OSError after `seconds`.
    """
    deadline = time.monotonic() + seconds
    for refusals in itertools.count():
        try:
            await client.execute(session, command="true")
        except (Refused, OSError) as refused:
            if getattr(refused, "status", NOT_YET) != NOT_YET or time.monotonic() > deadline:
                raise
            await asyncio.sleep(pause)
        else:
            return refusals
    raise AssertionError


def _key_of(host: Host) -> str:
    """A key of an account whose plan limits nothing here. Blocking."""
    account = host.output(str(BUNTIME), "accounts", "create", *ACCOUNT)
    return host.output(str(BUNTIME), "keys", "create", "--account", account)


async def _place(stack: AsyncExitStack, host: Host, key: str, pool_size: int) -> Place:
    client = await stack.enter_async_context(Client(host.url, key, host.config.metrics_socket))
    return Place(host, client, pool_size)


def _from_outside() -> dict[str, str]:
    """What the benchmark's environment sets, without what makes a host what it is."""
    ours = (*SHARED, "BUNTIME_PORT", "BUNTIME_HOST", "BUNTIME_URL", "BUNTIME_API_KEY")
    return {name: value for name, value in os.environ.items() if name.startswith("BUNTIME_") and name not in ours}


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except HostFailed as failed:
        raise NotStarted(str(failed)) from failed


@asynccontextmanager
async def in_thread[T](made: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves a block that takes seconds without stopping the loop."""
    value = await asyncio.to_thread(made.__enter__)
    try:
        yield value
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)
