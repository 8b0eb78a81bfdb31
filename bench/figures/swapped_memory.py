"""The memory of suspended sessions whose program holds much of it, before and after memory pressure.

The pressure is on the sessions' own cgroups, never on the machine: the kernel takes from each what it can. The figure
adds its own swap file if the machine permits it.
"""

import asyncio
from functools import partial

from bench import machine
from bench.baselines import CODE
from bench.context import Context, Sessions, each, sessions, stopwatch
from bench.figures.memory import both
from bench.report import Row
from bench.statistics import summarise

HELD_SECONDS = 30.0
# A background program that has written to all of its memory, and checks later that all of it is unchanged.
HOLD = """
cat >hold.ts <<'END'
import { randomBytes, createHash } from "crypto";
const digest = (b: Buffer) => createHash("sha1").update(b).digest("hex");
const held = Array.from({ length: MEGABYTES }, () => randomBytes(1 << 20));
const before = held.map(digest).join();
await Bun.write("held", "yes");
while (!(await Bun.file("look").exists())) await Bun.sleep(50);
await Bun.write("same", held.map(digest).join() === before ? "yes" : "no");
END
setsid bun run hold.ts >log 2>&1 &
"""


async def measure(context: Context) -> list[Row]:
    scale, client, instance = context.scale, context.client, context.server.config.instance
    count, held = scale.swapped_sessions, scale.swapped_mb
    size = 2 * count * held
    async with sessions(context) as made:
        before = await both(instance)
        await made.create_many(count)
        await context.settled(count)
        hold = HOLD.replace("MEGABYTES", str(held))
        await each(made.ids, lambda session: client.execute(session, command=hold), count)
        await _all_have(context, made, "held")
        await each(made.ids, lambda session: client.sleep(session, "idle"), 1)
        suspended = await both(instance)
        with machine.swap(context.server.scratch / "swap", size) as refused:
            for session in made.ids:
                sandbox = machine.sandbox_of(context.server.config, session)
                await asyncio.to_thread(partial(machine.reclaim, instance, sandbox))
            squeezed = await both(instance)
            wakes = [await stopwatch(client.execute(session, code=CODE)) for session in made.ids]
            await each(made.ids, lambda session: client.execute(session, command="touch look"), 1)
            await _all_have(context, made, "same")
            await made.delete_all()
    return [
        Row(
            figure="swapped-memory",
            what=f"suspended session whose program holds {held} MB (over {count}), then under pressure: first execute",
            measured=summarise(wakes),
            note=f"suspended {_each_mb(before, suspended, count)}; under pressure {_each_mb(before, squeezed, count)}; "
            + (f"no swap ({refused})" if refused else f"a swap file of {size} MB"),
        )
    ]


async def _all_have(context: Context, made: Sessions, file: str) -> None:
    """Waits until each session's program has written "yes" to `file`."""
    async with asyncio.timeout(HELD_SECONDS):
        for session in made.ids:
            command = f"while ! test -s {file}; do sleep 0.2; done; grep -qx yes {file}"
            await context.client.execute(session, command=command)


def _each_mb(before: tuple[float, float], after: tuple[float, float], count: int) -> str:
    return f"{(before[0] - after[0]) / count:.1f} MB by MemAvailable, {(after[1] - before[1]) / count:.1f} by cgroups"
