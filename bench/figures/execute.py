"""Execute of a line of code, and of `true`, in an active session, compared with starting Bun on the host.

The bare chain does the same beside it.
"""

from bench.bare_chain import bare_chain, least
from bench.baselines import CODE
from bench.context import MS, Context, bun_baseline, each, sessions, stopwatch
from bench.pace import PAUSE_SECONDS, by_turns
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST, MOST_COMMAND = 0.8, 0.5


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client

    async def execute(session: str) -> float:
        return await stopwatch(client.execute(session, code=CODE))

    async def command(session: str) -> float:
        return await stopwatch(client.execute(session, command="true"))

    async def bun(_: str) -> float:
        return await context.bun_run()

    async with sessions(context) as made, bare_chain(context, scale.execution_sessions) as chain:
        await made.create_many(scale.execution_sessions)
        await each(made.ids, execute, 1)
        numbers = {session: number for number, session in enumerate(made.ids)}

        async def healthz(_: str) -> float:
            return await stopwatch(client.healthz())

        async def bare_answer(_: str) -> float:
            return await chain.answer()

        async def bare_code(session: str) -> float:
            return await chain.code(numbers[session])

        async def bare_command(session: str) -> float:
            return await chain.command(numbers[session])

        works = {
            "execute": execute,
            "bun": bun,
            "command": command,
            "bare code": bare_code,
            "bare command": bare_command,
            "healthz": healthz,
            "bare answer": bare_answer,
        }
        taken = await by_turns(scale.execution_turns, made.ids, works)
        hasty = [await execute(made.ids[0]) for _ in range(scale.baseline_runs)]
    measured, baseline = summarise(taken["execute"]), bun_baseline(taken["bun"])
    commands, bun_p50 = summarise(taken["command"]), baseline.measured.p50
    bare_codes, bare_commands = summarise(taken["bare code"]), summarise(taken["bare command"])
    answers = summarise(taken["bare answer"]), summarise(taken["healthz"])
    return [
        Row(
            figure="execute",
            what=f"execute of console.log(1) in an active session ({scale.execution_sessions} take turns, "
            f"a pause of {PAUSE_SECONDS * MS:.0f} ms before each)",
            measured=measured,
            baselines=(baseline, Baseline("the bare chain", bare_codes)),
            checks=(ratio("p50", measured.p50, bun_p50, MOST),),
            note=f"the bare chain has {bare_codes.p50 / bun_p50:.2f}×, "
            f"and {least(bare_codes, *answers) / bun_p50:.2f}× with what /healthz takes here",
        ),
        Row(
            figure="execute",
            what="execute of the command `true`, likewise",
            measured=commands,
            baselines=(baseline, Baseline("the bare chain", bare_commands)),
            checks=(ratio("p50", commands.p50, bun_p50, MOST_COMMAND),),
            note=f"the bare chain has {bare_commands.p50 / bun_p50:.2f}×, "
            f"and {least(bare_commands, *answers) / bun_p50:.2f}× with what /healthz takes here",
        ),
        Row(
            figure="execute",
            what="the same in one session, one after the other, limited by its CPU quota",
            measured=summarise(hasty),
            baselines=(baseline,),
        ),
    ]
