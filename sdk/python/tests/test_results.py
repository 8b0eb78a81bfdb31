"""Results: whether a program succeeded, and its output while it runs."""

import pickle
from typing import Any

import pytest
from buntime_sdk import BuntimeError, ExecutionFailed, ExecutionResult, InvalidRequest
from buntime_sdk.shapes import Forms
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime, FakeResult


def result(exit_code: int = 0, stdout: str = "", stderr: str = "", *, timed_out: bool = False) -> ExecutionResult:
    return ExecutionResult(exit_code, 1, 1, 1, timed_out=timed_out, files_written=(), stdout=stdout, stderr=stderr)


def test_a_result_is_ok_only_with_exit_code_0_in_time() -> None:
    assert [result().ok, result(1).ok, result(124, timed_out=True).ok, result(0, timed_out=True).ok] == [
        True,
        False,
        False,
        False,
    ]


def test_check_returns_the_result_or_raises_with_the_end_of_the_output() -> None:
    good = result(stdout="1")
    assert good.check() is good
    bad = result(3, stdout="x" * 5000 + "last line", stderr="problem\n")
    with pytest.raises(ExecutionFailed) as caught:
        bad.check()
    assert isinstance(caught.value, BuntimeError)
    assert (caught.value.code, caught.value.result, caught.value.details) == ("execution_failed", bad, {"exitCode": 3})
    for part in ("exited with code 3", "problem", "last line"):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 2500
    assert pickle.loads(pickle.dumps(caught.value)).result == bad


def test_check_says_that_a_program_ran_out_of_time() -> None:
    with pytest.raises(ExecutionFailed, match="ran out of time"):
        result(124, timed_out=True).check()


def test_listeners_hear_the_output_in_pieces_and_the_result_has_all_of_it() -> None:
    heard: list[tuple[str, str]] = []
    session = FakeBuntime().on_execute("build", FakeResult("a\nb\n", "c\n", exit_code=2)).sessions.create()
    done = session.execute_command(
        "build",
        on_stdout=lambda data: heard.append(("out", data)),
        on_stderr=lambda data: heard.append(("err", data)),
    )
    assert heard == [("out", "a\n"), ("out", "b\n"), ("err", "c\n")]
    assert (done.stdout, done.stderr, done.exit_code) == ("a\nb\n", "c\n", 2)


async def test_an_async_listener_is_awaited() -> None:
    heard: list[str] = []

    async def listen(data: str) -> None:
        heard.append(data)

    async with AsyncFakeBuntime() as fake:
        session = await fake.on_execute("1", "a\n").sessions.create()
        done = await session.execute("1", on_stdout=listen)
    assert (heard, done.stdout) == (["a\n"], "a\n")


def test_a_context_heard_by_listeners_still_returns_its_value_and_what_it_displayed() -> None:
    shown = FakeResult("a\n", result=Forms("6", 6), displayed=(Forms("5", 5),))
    heard: list[str] = []
    context = FakeBuntime().on_execute("6", shown).sessions.create().contexts.create()
    done = context.execute("6", on_stdout=heard.append)
    assert (heard, done.result, done.displayed) == (["a\n"], Forms("6", 6), (Forms("5", 5),))


def test_a_listener_that_raises_ends_the_run_with_its_error() -> None:
    def fail(data: str) -> None:
        raise RuntimeError(data)

    session = FakeBuntime().on_execute("1", "a\n").sessions.create()
    with pytest.raises(RuntimeError, match="a"):
        session.execute("1", on_stdout=fail)


def test_listeners_and_an_idempotency_key_exclude_each_other() -> None:
    heard: list[Any] = []
    session = FakeBuntime().on_execute("1", "a\n").sessions.create()
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        session.execute("1", on_stdout=heard.append, idempotency_key="mine")
