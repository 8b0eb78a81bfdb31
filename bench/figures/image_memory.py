"""The memory of sessions that run a program of their image, beside sessions with a copy of the program each."""

from collections.abc import Awaitable, Callable
from typing import Any

from bench import machine, residents
from bench.context import Context, each, sessions
from bench.figures.memory import both, steady
from bench.report import Row

NAME = "bench-program"
MB = 1 << 20
RUN, RUNS = "exec python3 hold.py files", "^holds"
AT_ONCE = 2

type Prepare = Callable[[str], Awaitable[None]]


async def measure(context: Context) -> list[Row]:
    client, size = context.client, context.scale.image_mb

    async def copy(session: str) -> None:
        await residents.put(client, session, "hold.py")
        await residents.fill(client, session, "files", size, MB, "random")

    async def nothing(session: str) -> None:
        del session

    async with sessions(context) as made:
        await made.create()
        await copy(made.ids[0])
        await client.make_image(NAME, made.ids[0])
    try:
        shared = await _row(context, f"of one image whose program reads {size} MB of it", nothing, image=NAME)
        copied = await _row(context, f"of the default image with a copy of these {size} MB", copy)
    finally:
        await client.delete_image(NAME)
    return [shared, copied]


async def _row(context: Context, what: str, prepare: Prepare, **fields: Any) -> Row:
    count, instance = context.scale.image_sessions, context.server.config.instance

    async def run(session: str) -> None:
        await prepare(session)
        await residents.start(context.client, session, RUN, RUNS)

    async with sessions(context) as made:
        before, free = await both(instance), await steady(machine.free_mb)
        await made.create_many(count, **fields)
        await each(made.ids, run, AT_ONCE)
        await context.settled(count)
        after, left = await both(instance), await steady(machine.free_mb)
    available, charged, taken = before[0] - after[0], after[1] - before[1], free - left
    return Row(
        figure="image-memory",
        what=f"memory of a session {what} (over {count})",
        note=f"by cgroups, with the page cache, {charged / count:.2f} MB; by MemFree {taken / count:.2f} MB; "
        f"by MemAvailable, without what the kernel can drop, {available / count:.2f} MB",
    )
