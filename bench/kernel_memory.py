"""What a parked sandbox costs the kernel, in this checkout and in an earlier one:

    .venv/bin/python -m bench.kernel_memory --before PATH [--sandboxes 200] [--rounds 2]

Run it as root. Both checkouts must be set up. Their servers take turns, so that both see the same machine. The kernel
keeps an array over all file systems that it has had at a time, in each memory cgroup, and never shortens it. So what
one memory cgroup takes depends on what ran since the boot, and is printed first.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.baselines import CODE
from bench.client import Client
from bench.context import MS
from bench.earlier import PROGRAM, START_SECONDS, STOP_SECONDS, commit
from bench.figures.memory import steady
from bench.machine import available_mb
from bench.usage import LARGEST, slabs
from buntime.config import Config
from buntime.sandboxes import record
from buntime.sandboxes.kernel.cgroup_version import ROOT

MEMORY = ROOT / "memory" if (ROOT / "memory").is_dir() else ROOT
FILL_SECONDS = 900.0
FEW = 10  # parked sandboxes of the server that the larger pool is compared with
EMPTY_GROUPS = 50
CREATES, CREATE_POOL = 15, 20  # sessions of one turn, and the pool that they take
ARRAYS = "kmalloc-1k"  # where the kernel keeps the arrays


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the machine uses at one moment."""

    available_mb: float
    slabs: Mapping[str, int]  # bytes of each cache


@dataclass(frozen=True, slots=True)
class Running:
    config: Config
    client: Client

    async def filled(self, count: int) -> None:
        """Waits until so many sandboxes are parked. Raises TimeoutError."""
        async with asyncio.timeout(FILL_SECONDS):
            while await self.client.gauge("buntime_pool_parked") < count:  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.1)


@asynccontextmanager
async def server(checkout: Path, pool_size: int) -> AsyncIterator[Running]:
    """A server of the checkout."""
    command = (str(checkout / ".venv/bin/python"), "-c", PROGRAM, str(pool_size))
    process = await asyncio.create_subprocess_exec(*command, cwd=checkout, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            told = json.loads(await process.stdout.readline())
        config = Config(data_dir=Path(told["data"]))
        async with Client(told["url"], told["key"], config.metrics_socket) as client:
            yield Running(config, client)
    finally:
        process.stdin.close()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def kernel() -> Kernel:
    return Kernel(await steady(available_mb), slabs())


def file_systems(init: int) -> int:
    """Returns how many file systems of a sandbox's mount table are its own, not the host's."""

    def devices(process: str) -> set[str]:
        lines = Path("/proc", process, "mountinfo").read_text().splitlines()
        return {line.split()[2] for line in lines}

    return len(devices(str(init)) - devices("1"))


def memory_groups(instance: str, sandbox: str) -> int:
    top = MEMORY / f"buntime-{instance}" / sandbox
    return sum((group / "memory.stat").exists() for group in (top, *(path for path in top.rglob("*") if path.is_dir())))


def of_empty_group() -> float:
    """Returns how many objects of 1 kB a new memory cgroup takes."""
    groups = [MEMORY / f"buntime-bench-{number}" for number in range(EMPTY_GROUPS)]
    before = slabs()[ARRAYS]
    try:
        for group in groups:
            group.mkdir()
        return (slabs()[ARRAYS] - before) / 1024 / EMPTY_GROUPS
    finally:
        for group in groups:
            group.rmdir()


async def parked(checkout: Path, count: int) -> str:
    """Compares a pool of `count` with one of FEW. Returns what one of its sandboxes costs."""
    async with server(checkout, FEW) as running:
        await running.filled(FEW)
        before = await kernel()
    async with server(checkout, count) as running:
        await running.filled(count)
        after = await kernel()
        mounted, groups = Counter[int](), Counter[int]()
        for directory in (running.config.data_dir / "sandboxes").iterdir():
            init = record.running_init(directory, lambda _: True)
            if init is not None:
                mounted[file_systems(init)] += 1
                groups[memory_groups(running.config.instance, directory.name)] += 1
    more = count - FEW
    grown = {name: (after.slabs[name] - before.slabs.get(name, 0)) / 1024 / more for name in after.slabs}
    largest = sorted(grown, key=lambda name: -grown[name])[:LARGEST]
    shown = ", ".join(f"{name} {grown[name]:.1f}" for name in dict.fromkeys((ARRAYS, *largest)))
    return (
        f"file systems {_most(mounted)} and the kernel's own of the IPC namespace, memory cgroups {_most(groups)}, "
        f"MemAvailable {(before.available_mb - after.available_mb) / more:.2f} MB, "
        f"slabs {sum(grown.values()):.0f} kB: {shown} (kB; over {more})"
    )


def _most(found: Counter[int]) -> str:
    return " or ".join(f"{number} ({times}×)" for number, times in found.most_common())


async def creates(running: Running, times: list[float]) -> None:
    """Times a create with its first execute, as soon as the pool is full again."""
    await running.filled(CREATE_POOL)
    for _ in range(CREATES):
        start = time.perf_counter()
        session = await running.client.create()
        await running.client.execute(session, code=CODE)
        times.append((time.perf_counter() - start) * MS)
        await running.client.delete(session)


async def measure(before: Path, now: Path, count: int, rounds: int) -> None:
    sides = {await commit(before): before, await commit(now): now}
    print(f"A new memory cgroup takes {of_empty_group():.0f} objects of 1 kB now: sandboxes ran since the boot.")
    for _ in range(rounds):
        for name, checkout in sides.items():
            print(f"{name}: {await parked(checkout, count)}", flush=True)
    print(f"A new memory cgroup takes {of_empty_group():.0f} objects of 1 kB at the end.")
    times: dict[str, list[float]] = {name: [] for name in sides}
    async with server(before, CREATE_POOL) as first, server(now, CREATE_POOL) as second:
        pairs = list(zip((first, second), sides, strict=True))
        for turn in range(2 * rounds):
            for running, name in pairs if turn % 2 == 0 else pairs[::-1]:
                await creates(running, times[name])
    for name, found in times.items():
        print(f"{name}: create + first execute p50 {median(found):.1f} ms of {len(found)}, least {min(found):.1f} ms")
    earlier, later = (median(times[name]) for name in sides)
    print(f"ratio of the medians {later / earlier:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.kernel_memory")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of an earlier commit, set up")
    parser.add_argument("--sandboxes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: run this as root, because it starts sandboxes.", file=sys.stderr)
        return 1
    asyncio.run(measure(asked.before, Path(__file__).parents[1], asked.sandboxes, asked.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
