"""Execute in a context, compared with one request to the guest of the same session. The bare chain asks beside it."""

from dataclasses import dataclass

import msgspec

from bench import machine
from bench.bare_chain import bare_chain, least
from bench.context import Context, each, sessions, stopwatch
from bench.pace import by_turns
from bench.previews import address_of
from bench.report import Baseline, Check, Row
from bench.statistics import summarise
from buntime.config import Config
from buntime.sandboxes.guest.client import Guest, Links

MOST_MS = 1.0
CREATED_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Kernel:
    """A context, and what it is compared with: its session's guest, asked as the server asks it."""

    session: str
    context: str
    guest: Guest


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    kernels: list[Kernel] = []

    async def execute(kernel: Kernel) -> float:
        return await stopwatch(client.execute(kernel.session, contextId=kernel.context, code="1+1"))

    async def ask(kernel: Kernel) -> float:
        return await stopwatch(kernel.guest.check())

    async def list_none(kernel: Kernel) -> float:
        return await stopwatch(client.get("/files/list", {"sessionId": kernel.session}))

    async with (
        sessions(context) as made,
        Links() as links,
        bare_chain(context, scale.execution_sessions) as chain,
    ):

        async def create(session: str) -> None:
            body = msgspec.json.encode({"sessionId": session})
            made_context = msgspec.json.decode(await client.post("/contexts/create", body))
            answer = await client.execute(session, contextId=made_context["contextId"], code="1+1")
            if "2" not in str(answer.get("result")):
                raise ValueError(f"1+1 gave something else: {answer}")
            guest = Guest(links, await address_of(client, session), _secret(context.server.config, session))
            await guest.check()
            kernels.append(Kernel(session, made_context["contextId"], guest))

        await made.create_many(scale.execution_sessions)
        await each(made.ids, create, CREATED_AT_ONCE)
        numbers = {kernel.session: number for number, kernel in enumerate(kernels)}

        async def healthz(_: Kernel) -> float:
            return await stopwatch(client.healthz())

        async def bare_answer(_: Kernel) -> float:
            return await chain.answer()

        async def bare_question(kernel: Kernel) -> float:
            return await chain.ask(numbers[kernel.session])

        async def bare_evaluation(kernel: Kernel) -> float:
            return await chain.evaluation(numbers[kernel.session])

        async def bare_run(kernel: Kernel) -> float:
            return await chain.context_run(numbers[kernel.session])

        for number in numbers.values():
            await chain.context_run(number)  # starts its Bun
        works = {
            "execute": execute,
            "ask": ask,
            "list": list_none,
            "bare question": bare_question,
            "bare evaluation": bare_evaluation,
            "bare run": bare_run,
            "bare answer": bare_answer,
            "healthz": healthz,
        }
        taken = await by_turns(scale.execution_turns, kernels, works)
        at_once = await by_turns(scale.execution_turns, kernels, works, pause=0)
    measured, asked, listed, bare, evaluated, run, *answers = (summarise(taken[name]) for name in works)
    hasty, hasty_asked, _, _, hasty_evaluated, hasty_run, *hasty_answers = (summarise(at_once[name]) for name in works)
    return [
        Row(
            figure="context-execute",
            what="execute of 1+1 in a context",
            measured=measured,
            baselines=(
                Baseline("one direct request to the guest", asked),
                Baseline("/files/list of an empty directory, over the API", listed),
                Baseline("a question by the bare chain", bare),
                Baseline("1+1 by the bare chain", evaluated),
                Baseline("the same as TypeScript that SIGINT can end", run),
            ),
            checks=(Check("p50: more by", measured.p50 - asked.p50, MOST_MS, " ms"),),
            note=f"{measured.p50 / listed.p50:.2f}× of /files/list, which is {listed.p50 / asked.p50:.1f}× of direct; "
            f"the bare chain takes {bare.p50 - asked.p50:.2f} ms more than direct, "
            f"{evaluated.p50 - asked.p50:.2f} ms with 1+1, {run.p50 - asked.p50:.2f} ms as TypeScript that SIGINT "
            f"can end, and {least(run, *answers) - asked.p50:.2f} ms with what /healthz takes here too",
        ),
        Row(
            figure="context-execute",
            what="the same without pauses",
            measured=hasty,
            baselines=(
                Baseline("one direct request to the guest", hasty_asked),
                Baseline("1+1 by the bare chain", hasty_evaluated),
                Baseline("the same as TypeScript that SIGINT can end", hasty_run),
            ),
            checks=(Check("p50: more by", hasty.p50 - hasty_asked.p50, MOST_MS, " ms"),),
            note=f"the bare chain takes {hasty_evaluated.p50 - hasty_asked.p50:.2f} ms more than direct, "
            f"{hasty_run.p50 - hasty_asked.p50:.2f} ms as TypeScript that SIGINT can end, and "
            f"{least(hasty_run, *hasty_answers) - hasty_asked.p50:.2f} ms with what /healthz takes here too",
        ),
    ]


def _secret(config: Config, session: str) -> str:
    return machine.record_of(config, session).secret
