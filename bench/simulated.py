"""Hosts of a fleet without sandboxes, several in one process: real store, leases and loops, fake sandboxes.

python -m bench.simulated URL FIRST COUNT

Prints a line when all hosts may act. Then each line of input is a JSON object, and has a line of JSON for an answer:
{"seconds": 5, "at_once": 8} creates as fast as it can, {"seconds": 5, "rate": 20} so many a second. The hosts leave
the fleet at the end of the input.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import uvloop
from psycopg_pool import AsyncConnectionPool

from buntime.account import Key
from buntime.admin.plan_settings import plans_of
from buntime.caller import Caller
from buntime.config import Config
from buntime.daemon.logs import configure_logs
from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError
from buntime.fleet.choices import Choices
from buntime.fleet.comparing import Comparing, HeldSandbox
from buntime.fleet.guard import Guard
from buntime.fleet.holding import Holding
from buntime.fleet.keeping import Keeping
from buntime.fleet.lease_file import LeaseFile
from buntime.fleet.members import Description, HostState, Membership
from buntime.fleet.owners import FleetOwners
from buntime.fleet.postgres.members import PostgresMembers
from buntime.fleet.reporting import capacity_of
from buntime.joining import CONNECTIONS
from buntime.lifecycle.assembly import assemble_lifecycle
from buntime.lifecycle.keeper import Keeper, Pace
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.sealing import KEY_BYTES, Vault
from buntime.operations.assembly import Operations, assemble_operations
from buntime.ports import Peer
from buntime.requests import NewSession
from buntime.stores.postgres.connecting import PREPARE_AFTER, Place, place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.testing.archive import FakeArchive
from buntime.testing.history import FakeHistory
from buntime.testing.sandboxes import FakeSandboxes

LOOK_SECONDS = 0.02
CAPACITY = 100_000  # fake sandboxes
VAULT = Vault(bytes(KEY_BYTES))


class Watching(Guard):
    """Nothing here can be fenced, so no watchdog runs."""

    def __init__(self, file: LeaseFile) -> None:
        super().__init__((), file)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def watches(self, incarnation: int) -> bool:
        return True

    def has_fenced(self, incarnation: int) -> bool:
        return False


class Open:
    """Implements `fleet.fence.Fence`."""

    def prepare(self) -> None: ...
    def close(self) -> None: ...
    def extend(self, seconds: float) -> None: ...
    def thaw(self) -> None: ...
    def remove(self) -> None: ...


class Nothing:
    """Implements `fleet.comparing.Held`."""

    def all(self) -> Mapping[str, HeldSandbox]:
        return {}

    def keep_frozen(self, sandboxes: Collection[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Simulated:
    holding: Holding
    operations: Operations


@asynccontextmanager
async def simulated(place: Place, name: str, number: int, directory: Path) -> AsyncIterator[Simulated]:
    """A host from when it begins to join until it has left. `number`: for an address of its own."""
    holding: Holding | None = None

    def held() -> Holding:
        assert holding is not None
        return holding

    def membership() -> Membership:
        return held().membership

    async with AsyncExitStack() as stack:
        store = await PostgresStore.open(place, name, membership)
        stack.push_async_callback(store.close)
        settings = {"prepare_threshold": None if store.is_pooled else PREPARE_AFTER, "autocommit": True}
        pool = AsyncConnectionPool(place.conninfo, kwargs=settings, min_size=1, max_size=CONNECTIONS, open=False)
        members = PostgresMembers(await stack.enter_async_context(pool))
        sandboxes, file = FakeSandboxes(capacity=CAPACITY), LeaseFile(directory / name)
        stack.callback(file.close)
        address = f"10.0.{number // 250}.{number % 250 + 1}:8443"
        compares = Comparing(store, Nothing(), asyncio.Event())
        parts = (Watching(file), file, Open(), compares.compare, lambda: capacity_of(sandboxes))
        holding = Holding(members, name, Description(address, "1"), *parts)
        choices = Choices(name, members)
        owners = FleetOwners(
            name,
            store,
            holding.may_act,
            choices,
            lambda: held().state is HostState.DRAINING,
            lambda: held().incarnation,
        )
        store.listen_while(owners.has_duty)
        tasks, plans = await stack.enter_async_context(Tasks()), plans_of(Config())
        saving = await stack.enter_async_context(Saving(FakeArchive(), VAULT, sandboxes.volumes, time.time))
        shared = (store, sandboxes, saving, owners, FakeHistory(), plans, tasks, time.time)
        lifecycle = assemble_lifecycle(*shared, releases=store)
        given = (store, sandboxes, lifecycle, owners, FakeHistory(), VAULT, plans, tasks, time.time)
        operations = assemble_operations(*given, me=Peer(name, address))
        keeper = Keeper(store, sandboxes, lifecycle, owners, tasks, time.time, Pace())
        keeping = Keeping(members, store, membership, owners, time.time)
        loops = [asyncio.create_task(work) for work in (holding.run(), choices.keep(), keeping.run(), keeper.run())]
        try:
            yield Simulated(holding, operations)
        finally:
            me = holding.membership if holding.may_act() else None
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            if me is not None:
                await members.leave(me)


async def serve(url: str, first: int, count: int) -> None:
    place = place_of(url)
    with tempfile.TemporaryDirectory(prefix="buntime-simulated-") as directory:
        async with AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(simulated(place, f"hst_{number:018}", number, Path(directory)))
                for number in range(first, first + count)
            ]
            while not all(host.holding.may_act() for host in hosts):  # noqa: ASYNC110 - leases come by themselves
                await asyncio.sleep(LOOK_SECONDS)
            callers = await _callers(place)
            print(json.dumps({"hosts": count}), flush=True)
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                print(json.dumps(await _create(hosts, callers, json.loads(line))), flush=True)


async def _callers(place: Place) -> list[Caller]:
    """One of each account."""

    def none() -> Membership:
        raise AssertionError

    store = await PostgresStore.open(place, "hst_reader", none)
    plan = replace(plans_of(Config())["enterprise"], sessions=1_000_000)
    callers = [Caller(each, Key(f"key_{each.id}", each.id, "", "", 0), plan) for each in await store.list_accounts()]
    await store.close()
    return callers


async def _create(hosts: list[Simulated], callers: list[Caller], asked: dict[str, float]) -> dict[str, object]:
    """Each host in its turn makes one. Milliseconds of each, how many were refused, the seconds that all of it took,
    and how often a host lost its lease since it was there."""
    began, taken = time.perf_counter(), list[float]()
    turns, asking, refused = cycle(hosts), cycle(callers), 0
    end = began + asked["seconds"]

    async def one() -> None:
        nonlocal refused
        start = time.perf_counter()
        try:
            await next(turns).operations.sessions.create(next(asking), NewSession(), chosen=())
        except BuntimeError:  # the host has just lost its lease
            refused += 1
            await asyncio.sleep(LOOK_SECONDS)
            return
        taken.append((time.perf_counter() - start) * 1000)

    async def client() -> None:
        while time.perf_counter() < end:
            await one()

    async with asyncio.TaskGroup() as group:
        if "rate" in asked:
            for place in range(int(asked["rate"] * asked["seconds"])):
                await asyncio.sleep(max(0.0, began + place / asked["rate"] - time.perf_counter()))
                group.create_task(one())
        else:
            for _ in range(int(asked["at_once"])):
                group.create_task(client())
    fences = sum(host.holding.fences for host in hosts)
    return {"milliseconds": taken, "refused": refused, "seconds": time.perf_counter() - began, "fences": fences}


def main(url: str, first: str, count: str) -> None:
    configure_logs("error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(url, int(first), int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
