"""A question to the guest through the API, compared with a request that the server answers from memory.

The same question is also asked directly. The machine is idle between two questions, so that shows how much of the
difference is only to wake the guest and the one who asks. The bare chain does both beside it. Then all of them again,
one at once after the other.
"""

from bench import machine
from bench.bare_chain import bare_chain
from bench.context import Context, sessions, stopwatch
from bench.pace import by_turns
from bench.previews import address_of
from bench.report import Baseline, Check, Row
from bench.statistics import summarise
from buntime.sandboxes.guest.client import Guest, Links

MOST_MS = 0.3


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client

    async def list_files(session: str) -> float:
        return await stopwatch(client.get("/files/list", {"sessionId": session}))

    async def list_sessions(_: str) -> float:
        return await stopwatch(client.get("/sessions", {"limit": "1"}))

    guests = dict[str, Guest]()

    async def ask(session: str) -> float:
        return await stopwatch(guests[session].check())

    async with (
        sessions(context) as made,
        Links() as links,
        bare_chain(context, scale.execution_sessions) as chain,
    ):
        await made.create_many(scale.execution_sessions)
        for session in made.ids:
            secret = machine.record_of(context.server.config, session).secret
            guests[session] = Guest(links, await address_of(client, session), secret)
            await guests[session].check()
        numbers = {session: number for number, session in enumerate(made.ids)}

        async def bare_question(session: str) -> float:
            return await chain.ask(numbers[session])

        async def bare_answer(_: str) -> float:
            return await chain.answer()

        works = {
            "files": list_files,
            "sessions": list_sessions,
            "direct": ask,
            "bare question": bare_question,
            "bare answer": bare_answer,
        }
        taken = await by_turns(scale.execution_turns, made.ids, works)
        at_once = await by_turns(scale.execution_turns, made.ids, works, pause=0)
    measured, baseline, direct, question, answer = (summarise(taken[name]) for name in works)
    hasty, hasty_baseline, hasty_direct, *_ = (summarise(at_once[name]) for name in works)
    return [
        Row(
            figure="guest-question",
            what="/files/list of an empty directory",
            measured=measured,
            baselines=(
                Baseline("GET /sessions?limit=1", baseline),
                Baseline("one direct request to the guest", direct),
                Baseline("a question by the bare chain", question),
            ),
            checks=(Check("p50: more by", measured.p50 - baseline.p50, MOST_MS, " ms"),),
            note=f"in the bare chain a guest takes {question.p50 - answer.p50:.2f} ms more",
        ),
        Row(
            figure="guest-question",
            what="the same without pauses",
            measured=hasty,
            baselines=(
                Baseline("GET /sessions?limit=1", hasty_baseline),
                Baseline("one direct request to the guest", hasty_direct),
            ),
            checks=(Check("p50: more by", hasty.p50 - hasty_baseline.p50, MOST_MS, " ms"),),
        ),
    ]
