"""Makes this host a member of the fleet that shares a database, for as long as its server runs."""

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from buntime.config import PEER_PORT, Config
from buntime.daemon.listening import listening_as_member
from buntime.errors import Unavailable
from buntime.fleet.choices import Choices
from buntime.fleet.comparing import Comparing
from buntime.fleet.database_clock import DatabaseClock
from buntime.fleet.guard import COMMAND, Guard
from buntime.fleet.holding import Holding
from buntime.fleet.keeping import Keeping
from buntime.fleet.lease_file import LeaseFile
from buntime.fleet.members import Description, Fenced, HostState, Members, Membership
from buntime.fleet.numbers import FleetNumbers
from buntime.fleet.owners import FleetOwners
from buntime.ids import new_id
from buntime.ports import Peer
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.held import HeldSandboxes
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from buntime.sandboxes.kernel.durable import write_durably
from buntime.stores.belonging import had_alone, require_same
from buntime.stores.opening import opened_database, place_of
from buntime.stores.unusable import StoreUnusable

if TYPE_CHECKING:
    from buntime.stores.postgres.connecting import Place
    from buntime.stores.postgres.store import PostgresStore

PREFIX = "hst_"
JOIN_SECONDS = 60.0  # for which a start waits until it may act
LOOK_SECONDS = 0.02
CONNECTIONS = 5  # for leases alone: a renewal waits for no change


@dataclass(frozen=True, slots=True)
class Member:
    """This host in its fleet. `moved` is set whenever it has found out that sessions moved."""

    store: "PostgresStore"
    owners: FleetOwners
    holding: Holding
    members: Members
    moved: asyncio.Event
    me: Peer  # as the others reach it
    clock: DatabaseClock
    choices: Choices
    comparing: Comparing
    thaws: Callable[[], int]  # how often its fence has let the sandboxes go on

    def numbers(self, released: int) -> FleetNumbers:
        """`released`: sessions that it gave up since the start."""
        holding = self.holding
        return FleetNumbers(holding.seconds_left, holding.renewals, holding.fences, released, self.owners.claimed)


@asynccontextmanager
async def joined(config: Config) -> AsyncIterator[Member]:
    """The host is a member within the block, which begins when it may act. Until then, all its sandboxes are frozen.

    When the block ends, sessions go on until the lease is over. Raises StoreUnusable.
    """
    adopts = had_alone(config)
    host, place, moved = host_id(config), place_of(config), asyncio.Event()
    holding: Holding | None = None

    def held() -> Holding:
        assert holding is not None
        return holding

    async with opened_database(config, host, lambda: held().membership) as store:
        await asyncio.to_thread(require_same, config)
        from psycopg_pool import AsyncConnectionPool

        from buntime.fleet.postgres.members import PostgresMembers
        from buntime.stores.postgres.connecting import PREPARE_AFTER, RECONNECT_SECONDS
        from buntime.stores.postgres.migrations import newest

        me = Peer(host, config.peer or await own_address(place))
        described = Description(me.address, version("buntime"))
        file = LeaseFile(config.lease_file)
        held_here = HeldSandboxes(config.data_dir / "sandboxes", find_cgroups(config.instance))
        compares = Comparing(store, held_here, moved, adopts=adopts)
        fence, guard = HostFence(config.instance, listening_as_member(config)), _guard(config, file)
        settings = {"prepare_threshold": None if store.is_pooled else PREPARE_AFTER, "autocommit": True}
        pool = AsyncConnectionPool(
            place.conninfo,
            kwargs=settings,
            min_size=1,
            max_size=CONNECTIONS,
            open=False,
            reconnect_timeout=RECONNECT_SECONDS,
            name="leases",
        )
        failed: Exception | None = None  # of the block, or of the wait for a lease; the group would wrap it
        try:
            async with pool, asyncio.TaskGroup() as group:
                members = PostgresMembers(pool, newest())
                holding = Holding(members, host, described, guard, file, fence, compares.compare, dict)
                choices = Choices(host, members)
                owners = FleetOwners(
                    host,
                    store,
                    holding.may_act,
                    choices,
                    lambda: held().state is HostState.DRAINING,
                    lambda: held().incarnation,
                )
                store.listen_while(owners.has_duty)  # it delivers webhooks, and nothing else is in a hurry
                clock = DatabaseClock(members)
                keeping = Keeping(members, store, lambda: held().membership, owners, clock)
                tasks = [group.create_task(holding.run(), name="lease")]
                try:
                    await _until_it_acts(holding, place)
                    tasks.append(group.create_task(clock.keep(), name="clock"))
                    tasks.append(group.create_task(keeping.run(), name="hosts"))
                    tasks.append(group.create_task(choices.keep(), name="choices"))
                    await clock.until_heard()
                    own = (store, owners, holding, members, moved, me, clock, choices, compares)
                    yield Member(*own, thaws=lambda: fence.thaws)
                except Exception as failure:  # noqa: BLE001 - it is raised again below
                    failed = failure
                finally:
                    empty = await _empty(holding, store)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    if empty is not None:
                        with suppress(Fenced, Unavailable):
                            await members.leave(empty)
        finally:
            file.close()
        if failed is not None:
            raise failed


def _guard(config: Config, file: LeaseFile) -> Guard:
    return Guard(COMMAND if config.own_watchdog else (), file)


def host_id(config: Config) -> str:
    """The id of the host that this data directory makes, which stays the same."""
    file = config.host_id_file
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        write_durably(file, new_id(PREFIX) + "\n")
        return file.read_text().strip()


async def own_address(place: "Place") -> str:
    """Where other hosts reach this one by default: the address by which it reaches the database."""
    from buntime.stores.postgres.connecting import connect

    connection = await connect(place)
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            local = "127.0.0.1" if same.family == socket.AF_UNIX else same.getsockname()[0]
    finally:
        await connection.close()
    address = ipaddress.ip_address(local)
    return f"[{address}]:{PEER_PORT}" if address.version == 6 else f"{address}:{PEER_PORT}"


async def _empty(holding: Holding, store: "PostgresStore") -> Membership | None:
    """As which member the host leaves; None where it may come back for what it has."""
    if holding.state is not HostState.DRAINING:
        return None
    try:
        return None if await store.all_sessions() else holding.membership
    except (Fenced, Unavailable):
        return None


async def _until_it_acts(holding: Holding, place: "Place") -> None:
    end = time.monotonic() + JOIN_SECONDS
    while not holding.may_act():
        if time.monotonic() > end:
            raise StoreUnusable(f"This host gets no lease from the store {place.shown}: see the log.")
        await asyncio.sleep(LOOK_SECONDS)
