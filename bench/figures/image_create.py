"""Creating sessions on an image that an account made of a session with many files, beside the default image."""

from bench import residents
from bench.baselines import CODE
from bench.context import Context, sessions, stopwatch
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST, MORE_MS = 2, 5.0
NAME = "bench-modules"
FILE_BYTES = 600
LIMITS = {"cpu": 2, "memory": 2048, "disk": 4096}

type Times = tuple[list[float], list[float]]  # of the create alone, and with the first execute


async def measure(context: Context) -> list[Row]:
    files, client = context.scale.image_files, context.client
    made_times: Times = ([], [])
    default_times: Times = ([], [])
    async with sessions(context) as made:
        await made.create(resourceLimits=LIMITS)
        await residents.fill(client, made.ids[0], "node_modules", files, FILE_BYTES, "text")
        taken = await stopwatch(client.make_image(NAME, made.ids[0]))
        await made.delete_all()
    try:
        async with sessions(context) as made:
            await made.create(image=NAME)
            found = await client.execute(made.ids[0], command="find node_modules -type f | wc -l")
            if int(found["stdout"]) != files:
                raise RuntimeError(f"the image has {found['stdout']} files")
            for _ in range(context.scale.image_creates):
                for fields, times in (({"image": NAME}, made_times), ({}, default_times)):
                    await context.pool_filled()
                    times[0].append(await made.create(**fields))
                    times[1].append(times[0][-1] + await stopwatch(client.execute(made.ids[-1], code=CODE)))
                    await made.delete(made.ids[-1])
    finally:
        await client.delete_image(NAME)
    what = f"on a made image with {files} files"
    note = f"making the image took {taken:.0f} ms"
    return [
        _row(f"create {what}", made_times[0], "create on the default image", default_times[0], note),
        _row(f"create + first execute {what}", made_times[1], "the same on the default image", default_times[1], ""),
    ]


def _row(what: str, times: list[float], beside: str, default_times: list[float], note: str) -> Row:
    measured, baseline = summarise(times), summarise(default_times)
    return Row(
        figure="image-create",
        what=what,
        measured=measured,
        baselines=(Baseline(beside, baseline),),
        checks=(Check("p50", measured.p50, MOST * baseline.p50 + MORE_MS, " ms"),),
        note=note,
    )
