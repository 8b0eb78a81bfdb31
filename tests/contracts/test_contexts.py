"""The contract of `inside.Contexts`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import pytest

from buntime.errors import ContextLost, ContextNotFound
from buntime.inside import Contexts, Evaluation, NewContext, Stream
from buntime.ports import Sandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, FakeHost, Host, LocalHost

PATIENCE = 60.0  # seconds; the timeout of runs that end by themselves
numbers = count(1)


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    host: Host = FakeHost() if request.param == "fake" else LocalHost()
    try:
        await host.reopen({})
        yield host
    finally:
        await host.close()


@pytest.fixture
async def sandbox(host: Host) -> Sandbox:
    return (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox


@pytest.fixture
def contexts(sandbox: Sandbox) -> Contexts:
    return sandbox.contexts


def _new() -> NewContext:
    return NewContext(f"ctx_{next(numbers):018}")


async def _started(contexts: Contexts) -> str:
    new = _new()
    await contexts.create(new)
    return new.id


async def _run(contexts: Contexts, context: str, code: str, timeout: float = PATIENCE) -> Evaluation:
    run = await contexts.run(context, code, timeout)
    return replace(run, value=_plain(run.value), displayed=_plain(run.displayed))


def _plain(told: Any) -> Any:
    """Converts to plain values, as a client gets them; some parts may be JSON already."""
    return msgspec.json.decode(msgspec.json.encode(told))


def _number(number: int) -> Mapping[str, object]:
    return {"text": str(number), "json": number}


async def test_variables_survive_from_run_to_run(contexts: Contexts) -> None:
    context = await _started(contexts)
    first = await _run(contexts, context, "let a = 5")
    second = await _run(contexts, context, "a")
    assert (first.exit_code, first.value, first.failure, first.survived) == (0, None, None, True)
    assert (second.exit_code, second.value) == (0, _number(5))


async def test_contexts_share_no_variables(contexts: Contexts) -> None:
    one, two = await _started(contexts), await _started(contexts)
    await _run(contexts, one, "let a = 1")
    await _run(contexts, two, "let a = 2")
    assert (await _run(contexts, one, "a")).value == _number(1)
    assert (await _run(contexts, two, "a")).value == _number(2)


async def test_output_and_displayed_values_come_with_the_result(contexts: Contexts) -> None:
    context = await _started(contexts)
    assert (await _run(contexts, context, 'console.log("hello")')).stdout == b"hello\n"
    assert (await _run(contexts, context, "display(3)")).displayed == [_number(3)]


async def test_sinks_receive_output_and_values_as_they_come(contexts: Contexts) -> None:
    context = await _started(contexts)
    output: list[tuple[Stream, bytes]] = []
    shown: list[Mapping[str, object]] = []

    async def sink(stream: Stream, content: bytes) -> None:
        output.append((stream, content))

    async def shows(forms: Mapping[str, object]) -> None:
        shown.append(_plain(forms))

    said = await contexts.run(context, 'console.log("hello")', PATIENCE, sink, shows)
    displayed = await contexts.run(context, "display(3)", PATIENCE, sink, shows)
    assert (output, said.stdout) == ([("stdout", b"hello\n")], b"")
    assert (shown, list(displayed.displayed)) == ([_number(3)], [])


async def test_a_thrown_error_is_reported_and_the_context_lives(contexts: Contexts) -> None:
    context = await _started(contexts)
    await _run(contexts, context, "let a = 5")
    threw = await _run(contexts, context, 'throw new Error("no")')
    assert threw.failure is not None
    assert (threw.exit_code, threw.failure.name, threw.failure.message, threw.survived) == (1, "Error", "no", True)
    assert "cell-2.tsx:1:" in threw.failure.stack
    assert threw.failure.stack.encode() in threw.stderr
    assert (await _run(contexts, context, "a")).value == _number(5)


async def test_a_run_past_its_timeout_is_interrupted_and_variables_stay(contexts: Contexts) -> None:
    context = await _started(contexts)
    await _run(contexts, context, "let a = 5")
    late = await _run(contexts, context, "for (;;) {}", 0.3)
    assert (late.exit_code, late.timed_out, late.survived) == (124, True, True)
    assert (await _run(contexts, context, "a")).value == _number(5)


async def test_an_uninterruptible_run_is_killed_with_its_context(contexts: Contexts) -> None:
    context = await _started(contexts)
    late = await _run(contexts, context, "Bun.sleepSync(1e9)", 0.3)
    assert (late.exit_code, late.timed_out, late.survived) == (124, True, False)
    with pytest.raises(ContextLost) as lost:
        await _run(contexts, context, "1")
    assert lost.value.details["reason"] == "timeout"


async def test_a_program_that_ends_itself_ends_its_context(contexts: Contexts) -> None:
    context = await _started(contexts)
    ended = await _run(contexts, context, "process.exit(7)")
    assert (ended.exit_code, ended.survived, ended.timed_out) == (7, False, False)
    with pytest.raises(ContextLost) as lost:
        await _run(contexts, context, "1")
    assert lost.value.details["reason"] == "exited"


async def test_runs_in_the_same_context_wait_for_each_other(contexts: Contexts) -> None:
    context = await _started(contexts)
    runs = await asyncio.gather(*(_run(contexts, context, f"let a = {n}") for n in range(5)))
    assert all(run.exit_code == 0 for run in runs)
    assert (await contexts.list())[0].runs == 5


async def test_contexts_are_listed_and_counted_until_they_are_lost_and_deleted(
    sandbox: Sandbox, contexts: Contexts
) -> None:
    one, two = await _started(contexts), await _started(contexts)
    assert [context.id for context in await contexts.list()] == [one, two]
    assert sandbox.live("contexts") == 2
    await _run(contexts, one, "process.exit(0)")
    assert {context.id: context.status for context in await contexts.list()} == {one: "lost", two: "running"}
    await contexts.delete(one)
    await contexts.delete(two)
    assert await contexts.list() == []
    assert sandbox.live("contexts") == 0


async def test_an_unknown_or_deleted_context_is_not_found(contexts: Contexts) -> None:
    context = await _started(contexts)
    await contexts.delete(context)
    for unknown in (context, _new().id):
        with pytest.raises(ContextNotFound):
            await _run(contexts, unknown, "1")
        with pytest.raises(ContextNotFound):
            await contexts.delete(unknown)
