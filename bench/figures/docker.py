"""The same two operations with a Docker engine, if the machine has one."""

import asyncio

from bench.baselines import CODE, Docker, timed
from bench.context import MS, Context, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

TIMES_FASTER = 10


async def measure(context: Context) -> list[Row]:
    reason = await asyncio.to_thread(Docker.reason_against)
    if reason:
        return [Row(figure="docker", what="docker run and docker exec for comparison", skipped=reason)]
    scale, client = context.scale, context.client
    firsts: list[float] = []
    warms: list[float] = []
    async with sessions(context) as made:
        for _ in range(scale.docker_runs):
            created = await made.create()
            firsts.append(created + await stopwatch(client.execute(made.ids[-1], code=CODE)))
        for session in made.ids:
            warms.append(await stopwatch(client.execute(session, code=CODE)))
    runs, executes = await asyncio.to_thread(_by_docker, context)
    return [
        _row("create + first execute", firsts, "docker run", runs),
        _row("execute in a warm session", warms, "docker exec", executes),
    ]


def _by_docker(context: Context) -> tuple[list[float], list[float]]:
    with Docker(context.server.image.path) as docker:
        return timed(docker.run, context.scale.docker_runs), timed(docker.execute, context.scale.docker_runs)


def _row(what: str, ours: list[float], name: str, theirs: list[float]) -> Row:
    measured = summarise(ours)
    baseline = Baseline(name, summarise([seconds * MS for seconds in theirs]))
    return Row(
        figure="docker",
        what=f"{what}, compared with {name}",
        measured=measured,
        baselines=(baseline,),
        checks=(ratio("faster", baseline.measured.p50, measured.p50, TIMES_FASTER, least=True),),
    )
