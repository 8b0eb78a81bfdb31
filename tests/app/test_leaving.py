"""Clients that disconnect before the answer of a request without streaming."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from buntime.inside import Sink
from buntime.ports import Run, RunResult
from buntime.testing.sandboxes import FakeSandbox, result
from tests.app.serving import Api
from tests.waiting import eventually

SECONDS = 20.0


class Program:
    """A program in the session that runs until the test ends it."""

    def __init__(self) -> None:
        self.runs = 0
        self.was_ended = False
        self.may_end = asyncio.Event()

    async def __call__(self, run: Run, sink: Sink | None = None) -> RunResult:
        self.runs += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_ended = True
            raise
        return result(stdout=b"done")


@pytest.fixture
async def program(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Program]:
    made = Program()
    monkeypatch.setattr(FakeSandbox, "run", lambda sandbox, run, sink=None: made(run, sink))
    yield made
    made.may_end.set()


async def leave_during_the_run(api: Api, program: Program, body: object, **headers: str) -> None:
    request = asyncio.create_task(api.call("POST", "/execute", body, **headers))
    await eventually(lambda: program.runs)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_a_client_that_leaves_ends_its_run(api: Api, program: Program) -> None:
    await leave_during_the_run(api, program, {"sessionId": await api.session(), "command": "x"})
    await eventually(lambda: program.was_ended, seconds=SECONDS)


async def test_a_session_whose_client_left_may_sleep(api: Api, program: Program) -> None:
    session = await api.session()
    await leave_during_the_run(api, program, {"sessionId": session, "command": "x"})
    await eventually(lambda: program.was_ended, seconds=SECONDS)
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})).status == 200


async def test_a_run_with_a_key_goes_on_and_a_repeat_gets_its_result(api: Api, program: Program) -> None:
    body = {"sessionId": await api.session(), "command": "x"}
    await leave_during_the_run(api, program, body, Idempotency_Key="k")
    again = await api.call("POST", "/execute", body, Idempotency_Key="k")
    assert again.refusal == (409, "idempotency_in_progress")
    program.may_end.set()
    await eventually(lambda: api.store.answers)
    again = await api.call("POST", "/execute", body, Idempotency_Key="k")
    assert (again.status, again.json["stdout"], program.runs) == (200, "done", 1)
    assert not program.was_ended
