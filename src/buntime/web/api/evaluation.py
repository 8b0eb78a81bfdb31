"""`POST /execute` with a `contextId`: running code in a context."""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from buntime import errors, inside, requests
from buntime.operations.contexts import Evaluated
from buntime.web.api.ids import context_id
from buntime.web.api.runs import TextOutput, end_of, printed
from buntime.web.operation import Call
from buntime.web.streaming import Out
from buntime.web.wire import contexts as wire
from buntime.web.wire.execution import Execute
from buntime.web.wire.shapes import NoQuery

FOR_THE_CONTEXT = "A run in a context uses the {} of the context: pass {} to POST /contexts/create."


def check_fields(body: Execute) -> None:
    """Raises InvalidRequest for fields that a run in a context cannot have."""
    if not isinstance(body.command, UnsetType):
        raise errors.InvalidRequest("command", "A context runs code. Omit contextId to run a command.")
    if body.env:
        raise errors.InvalidRequest("env", FOR_THE_CONTEXT.format("environment", "env"))
    if body.working_dir != "/workspace":
        raise errors.InvalidRequest("workingDir", FOR_THE_CONTEXT.format("working directory", "workingDir"))
    if body.stdin:
        raise errors.InvalidRequest("stdin", "A run in a context has no standard input.")
    if body.detach:
        raise errors.InvalidRequest("detach", "A run in a context cannot be detached.")


async def evaluate(call: Call[NoQuery, Execute], wanted: str, request: requests.Execute) -> wire.Evaluated:
    done = await call.operations.contexts.run(call.caller, context_id(wanted), request)
    return wire.Evaluated(
        displayed=[_forms(forms) for forms in done.result.displayed],
        **printed(done),  # type: ignore[arg-type]
        **_end(done),  # type: ignore[arg-type]
    )


async def stream_evaluation(call: Call[NoQuery, Execute], wanted: str, request: requests.Execute, out: Out) -> None:
    output = TextOutput(out)

    async def show(forms: Mapping[str, object]) -> None:
        await out.event("displayed", _forms(forms))

    try:
        done = await call.operations.contexts.stream(
            call.caller, context_id(wanted), request, out.begin_events, output, show
        )
    finally:
        if out.begun:
            await output.finish()
    await out.event("result", wire.EvaluatedEnd(**_end(done)))  # type: ignore[arg-type]


def _end(done: Evaluated) -> dict[str, object]:
    """The fields of `wire.EvaluatedEnd`."""
    result = done.result
    by_itself = result.survived and not result.timed_out and result.exit_code in (0, 1)
    failure = result.failure
    return {
        **end_of(done),
        "result": None if result.value is None else _forms(result.value),
        "error": UNSET if failure is None else _thrown(failure),
        "context_survived": UNSET if by_itself else result.survived,
    }


def _forms(forms: Mapping[str, object]) -> wire.Forms:
    table = forms.get("table")
    shown = {**forms, **({"table": wire.Table(**table)} if isinstance(table, dict) else {})}
    return wire.Forms(**shown)  # type: ignore[arg-type]


def _thrown(failure: inside.ContextFailure) -> wire.Thrown:
    return wire.Thrown(name=failure.name, message=failure.message, stack=failure.stack)
