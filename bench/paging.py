"""Paging suspended sessions out: by the server, a minute after their suspension, or at once."""

import asyncio
import resource
import subprocess
import time
from collections.abc import Collection

from bench import machine
from bench.context import MS, Context
from buntime.config import Config
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from buntime.sandboxes.kernel.reclaim import AFTER, command, question

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # without another one that is out


async def paged_out(context: Context, sessions: Collection[str]) -> int:
    """Returns when the server has paged out these suspended sessions, or makes no progress: how many are out.

    `--quick` does not wait for the server, but does the same at once.
    """
    config = context.server.config
    serving = await asyncio.to_thread(machine.serving, config)
    left = {serving[session] for session in sessions}
    if context.scale.waits_for_page_out:
        await asyncio.sleep(AFTER)
    else:
        for sandbox in left:
            await asyncio.to_thread(page_out, config, sandbox)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and time.monotonic() < deadline:
        out = {sandbox for sandbox in left if machine.swapped_mb(config.instance, sandbox)}
        if out:
            left -= out
            deadline = time.monotonic() + PATIENCE_SECONDS
        await asyncio.sleep(LOOK_SECONDS)  # after the last one too, which may be under way
    return len(sessions) - len(left)


def page_out(config: Config, sandbox: str) -> float:
    """Does what the server does a minute after a suspension. Returns the milliseconds of CPU time that it took,
    with the start of the program, which the server starts once for many."""
    cgroups = find_cgroups(config.instance)
    cgroups.lend_swap(sandbox)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command(), input=question(cgroups.pages_at(sandbox)), stdout=subprocess.DEVNULL, check=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cgroups.settle_swap(sandbox)
    return (now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime) * MS
