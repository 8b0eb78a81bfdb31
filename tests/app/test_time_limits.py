"""Time and memory limits, with short times instead of the real ones."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import Run, RunResult
from buntime.testing.sandboxes import FakeSandbox
from buntime.web import app, bodies
from buntime.web.api import execution as api_execution
from buntime.web.api import sessions as api_sessions
from tests.app.serving import Api, serving
from tests.waiting import eventually


async def stuck(run: Run, sandbox: FakeSandbox) -> RunResult:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_request_over_its_time_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(api_execution.execute, seconds=0.05)
    monkeypatch.setattr(app, "OPERATIONS", (*api_sessions.OPERATIONS, short))
    async with serving(stuck) as api:
        body = {"sessionId": await api.session(), "code": "1"}
        for headers in ({}, {"Idempotency_Key": "k"}):
            answer = await api.call("POST", "/execute", body, **headers)
            assert answer.refusal == (408, "execution_timeout")
            assert answer.error["retryable"] is True
        assert (await api.call("POST", "/execute", body, Idempotency_Key="k")).refusal == (409, "outcome_unknown")


async def test_a_create_over_its_time_keeps_its_key_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "OPERATIONS", (replace(api_sessions.create_session, seconds=0.05),))
    async with serving() as api:
        api.sandboxes.open_for_claims.clear()
        assert (await api.call("POST", "/sessions/create", Idempotency_Key="k")).status == 408
        assert (await api.call("POST", "/sessions/create", Idempotency_Key="k")).status == 409
        api.sandboxes.open_for_claims.set()
        await eventually(lambda: api.store.answers)
        assert (await api.call("POST", "/sessions/create", Idempotency_Key="k")).status == 200
        assert len(api.store.sessions) == 1


async def test_a_body_that_arrives_too_slowly_is_408(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE", 0.05)
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /sessions/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n"
        b"Authorization: Bearer " + api.key.encode() + b"\r\n\r\n{"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    await writer.wait_closed()


async def test_memory_for_bodies_is_given_first_come_first_served() -> None:
    memory, order = bodies.BodyMemory(limit=10 * MB), []

    async def holder(name: str, size: int) -> None:
        async with memory.room(size * MB):
            order.append(name)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(memory.room(8 * MB))
        waiting = [asyncio.create_task(holder(name, size)) for name, size in (("large", 9), ("fits now", 2))]
        await asyncio.sleep(0)
        async with memory.room(1000):
            order.append("small")
        assert order == ["small"]
    await asyncio.gather(*waiting)
    assert order == ["small", "large", "fits now"]


async def test_a_body_that_gets_no_memory_in_time_is_unavailable() -> None:
    memory = bodies.BodyMemory(limit=2 * MB, patience=0.01)
    async with memory.room(2 * MB):
        with pytest.raises(Unavailable):
            async with memory.room(2 * MB):
                raise AssertionError
    async with memory.room(2 * MB):
        pass


async def test_a_cancelled_waiter_lets_the_next_one_in() -> None:
    memory, let_in = bodies.BodyMemory(limit=3 * MB), asyncio.Event()

    async def holder(size: int) -> None:
        async with memory.room(size * MB):
            let_in.set()

    async with memory.room(int(1.5 * MB)):
        first, second = asyncio.create_task(holder(3)), asyncio.create_task(holder(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await second
    assert let_in.is_set()
