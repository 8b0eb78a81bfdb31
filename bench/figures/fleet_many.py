"""Many hosts and sessions in one PostgreSQL, beside a few. Hosts are simulated: see `bench.simulated`.

Both sides have a PostgreSQL of their own, and take turns. In a turn, the hosts join, do what they do each second, then
create a little, then at one rate on both sides, and then as fast as they can. Meanwhile sessions are looked up.
"""

import asyncio
import json
import os
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from bench.context import MS, Context
from bench.fleets import in_thread
from bench.full_store import DATABASE, forget_creates, full_store, session_id
from bench.report import Baseline, Row, ratio
from bench.server import NotStarted
from bench.statistics import summarise
from buntime.fleet.members import Fenced, Membership
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore
from tests.contracts.postgres import Server

FEW_HOSTS, FEW_ROWS = 3, 1000
MOST = 2.0
PROCESSES = 2  # that the hosts share
SETTLE_SECONDS = 3.0
START_SECONDS = 120.0
RATE = 10  # creates a second that leave the machine idle
EQUAL_RATE = 150  # creates a second that are offered to both sides, whatever their answers take
AT_ONCE = 16  # creates, when they are as fast as they can be
LOOK_PAUSE = 0.002
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Created:
    """What a process of hosts says."""

    milliseconds: list[float]  # of each create
    refused: int
    seconds: float  # of all
    fences: int  # how often one of its hosts lost its lease


@dataclass(slots=True)
class Side:
    hosts: int
    rows: int
    server: Server
    lookups: list[float] = field(default_factory=list)  # milliseconds, beside RATE creates a second
    equal: list[float] = field(default_factory=list)  # the same beside EQUAL_RATE creates a second
    made: list[float] = field(default_factory=list)  # creates a second then
    full: list[float] = field(default_factory=list)  # the same beside creates that are as fast as they can be
    creates: list[float] = field(default_factory=list)  # a second
    create_times: list[float] = field(default_factory=list)  # milliseconds
    quiet: list[float] = field(default_factory=list)  # cores that PostgreSQL used while hosts did what they always do
    each: list[float] = field(default_factory=list)  # milliseconds of PostgreSQL's CPU time for one create
    refused: int = 0  # creates
    fences: int = 0  # how often a host lost its lease, which a machine that is too busy does

    @property
    def shown(self) -> str:
        return f"{self.hosts} hosts, {self.rows:,} sessions"


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    async with AsyncExitStack() as stack:
        many = await _side(context, stack, scale.simulated_hosts, scale.simulated_rows)
        few = await _side(context, stack, FEW_HOSTS, FEW_ROWS)
        for turn in range(scale.simulated_turns):
            for side in (many, few) if turn % 2 == 0 else (few, many):
                context.say(f"{side.shown} ...")
                await _turn(side, scale.simulated_seconds)
    made = f"creates a second: {summarise(many.made).p50:.0f}, and {summarise(few.made).p50:.0f} for {few.shown}"
    busy = "the processors are full on both sides, with more creates on the smaller one: mostly a wait for a processor"
    return [
        _lookups(many, few, "lookups", f"{RATE} creates a second"),
        _lookups(many, few, "equal", f"{EQUAL_RATE} creates a second on both sides", made, None),
        _lookups(many, few, "full", f"creates as fast as they can be, {AT_ONCE} at once", busy, None),
        _row(many, few, "creates a second", "creates", "/s", _per_create(many, few)),
        _row(many, few, "a create", "create_times", "ms", f"{AT_ONCE} at once"),
        _row(many, few, "cores that PostgreSQL uses, without requests", "quiet", "", ""),
    ]


def _lookups(many: Side, few: Side, name: str, beside: str, note: str = "", most: float | None = MOST) -> Row:
    measured, baseline = summarise(getattr(many, name)), summarise(getattr(few, name))
    times = f"p99 {measured.p99 / baseline.p99:.2f} times that of the baseline, {baseline.p99:.2f} ms"
    return Row(
        figure="fleet-many",
        what=f"lookup of a session, {many.shown}, {beside}",
        measured=measured,
        baselines=(Baseline(few.shown, baseline),),
        checks=() if most is None else (ratio("p99", measured.p99, baseline.p99, most),),
        note="; ".join(filter(None, (times, note))),
    )


def _row(many: Side, few: Side, what: str, name: str, unit: str, note: str) -> Row:
    return Row(
        figure="fleet-many",
        what=f"{what}, {many.shown}",
        measured=summarise(getattr(many, name)),
        unit=unit,
        baselines=(Baseline(few.shown, summarise(getattr(few, name)), unit),),
        note=note,
    )


def _per_create(many: Side, few: Side) -> str:
    bare, other = summarise(many.each).p50, summarise(few.each).p50
    return (
        f"{AT_ONCE} at once; PostgreSQL takes {bare:.2f} ms of CPU time for each, and {other:.2f} ms for {few.shown}; "
        f"refused {many.refused} and {few.refused}; leases lost {many.fences} and {few.fences}"
    )


async def _side(context: Context, stack: AsyncExitStack, hosts: int, rows: int) -> Side:
    home = context.server.scratch / f"postgres-{hosts}"
    home.mkdir()
    for directory in (context.server.scratch, context.server.scratch.parent, home):
        directory.chmod(0o755)  # PostgreSQL is not root
    context.say(f"Filling a PostgreSQL with {rows:,} sessions ...")
    return Side(hosts, rows, await stack.enter_async_context(in_thread(full_store(home, hosts, rows))))


async def _turn(side: Side, seconds: float) -> None:
    async with _hosts(side) as processes:
        await asyncio.sleep(SETTLE_SECONDS)
        before = _cpu(side.server)
        await asyncio.sleep(seconds)
        side.quiet.append((_cpu(side.server) - before) / seconds)
        await _looked_up(side, side.lookups, _created(processes, {"seconds": seconds, "rate": RATE / PROCESSES}))
        offered = {"seconds": seconds, "rate": EQUAL_RATE / PROCESSES}
        took = await _looked_up(side, side.equal, _created(processes, offered))
        side.made.append(sum(len(one.milliseconds) / one.seconds for one in took))
        before = _cpu(side.server)
        fast = {"seconds": seconds, "at_once": AT_ONCE // PROCESSES}
        took = await _looked_up(side, side.full, _created(processes, fast))
        side.refused += sum(one.refused for one in took)
        side.fences += sum(one.fences for one in took)
        used, made = _cpu(side.server) - before, [each for one in took for each in one.milliseconds]
        side.creates.append(sum(len(one.milliseconds) / one.seconds for one in took))
        side.create_times += made
        side.each.append((used - side.quiet[-1] * seconds) * MS / len(made))
    await asyncio.to_thread(forget_creates, side.server)


async def _looked_up(side: Side, times: list[float], creates: Coroutine[Any, Any, list[Created]]) -> list[Created]:
    """Adds the milliseconds of each lookup, one after the other, until the creates have ended. It is by the store of a
    host that does nothing else and owns no session, so each lookup asks the database."""

    def none() -> Membership:
        raise Fenced

    store = await PostgresStore.open(place_of(side.server.url(DATABASE)), "hst_reader", none)
    creating = asyncio.create_task(creates)
    try:
        while not creating.done():
            name = session_id(random.randint(1, side.rows))
            start = time.perf_counter()
            found = await store.get_session(name)
            times.append((time.perf_counter() - start) * MS)
            if found is None:
                raise RuntimeError(f"the store has no {name}")
            await asyncio.sleep(LOOK_PAUSE)
    finally:
        await store.close()
    return await creating


@asynccontextmanager
async def _hosts(side: Side) -> AsyncIterator[list[Process]]:
    """The processes of the hosts, of which all may act. They leave at the end."""
    share, processes = side.hosts / PROCESSES, list[Process]()
    bounds = [round(share * number) for number in range(PROCESSES + 1)]
    try:
        for first, end in pairwise(bounds):
            command = (sys.executable, "-m", "bench.simulated", side.server.url(DATABASE), str(first), str(end - first))
            processes.append(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=1 << 26))
        async with asyncio.timeout(START_SECONDS):
            for process in processes:
                await _line(process)
        yield processes
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(process.wait() for process in processes))


async def _created(processes: Iterable[Process], asked: dict[str, float]) -> list[Created]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
    said = await asyncio.gather(*(_line(process) for process in processes))
    return [msgspec.json.decode(line, type=Created) for line in said]


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise NotStarted("the process of simulated hosts ended")
    return line


def _cpu(server: Server) -> float:
    """Seconds of CPU time of all processes that PostgreSQL has, and of those that ended."""
    data = server.directory / "data"
    master = int((data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sum(map(_cpu_of, (master, *map(int, children))))


def _cpu_of(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICK  # its own, and that of children which ended
