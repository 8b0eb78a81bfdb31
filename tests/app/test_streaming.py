"""POST /execute with `stream` from a client's point of view. The test controls the program."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from starlette.types import Message

from buntime.inside import Sink
from buntime.ports import Run, RunResult, SandboxGone
from buntime.testing.sandboxes import FakeSandbox, result
from buntime.web import streaming
from buntime.web.exchange import open_exchange
from tests.app.serving import Api
from tests.waiting import eventually

SECONDS = 20.0


class Program:
    """A program in the session that does what the test says."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.ended: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self.left = False

    async def __call__(self, run: Run, sink: Sink | None = None) -> RunResult:
        assert sink is not None
        self.sink = sink
        try:
            return replace(await self.ended, stdout=b"", stderr=b"")
        except asyncio.CancelledError:
            self.left = True
            raise

    async def says(self, content: bytes) -> None:
        await eventually(lambda: self.sink)
        assert self.sink is not None
        await self.sink("stdout", content)


@pytest.fixture
async def program(api: Api, monkeypatch: pytest.MonkeyPatch) -> Program:
    made = Program()
    monkeypatch.setattr(FakeSandbox, "run", lambda sandbox, run, sink=None: made(run, sink))
    return made


@asynccontextmanager
async def streamed(api: Api, session: str, **fields: object) -> AsyncIterator[aiohttp.ClientResponse]:
    body = {"sessionId": session, "command": "x", "stream": True, **fields}
    headers = {"Authorization": f"Bearer {api.key}"}
    async with asyncio.timeout(SECONDS), api.http.post(api.url + "/execute", json=body, headers=headers) as answer:
        yield answer


async def lines(answer: aiohttp.ClientResponse) -> list[str]:
    return [line for line in (await answer.read()).decode().split("\n") if line]


async def test_output_arrives_before_the_program_ends(api: Api, program: Program) -> None:
    async with streamed(api, await api.session()) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["x-accel-buffering"] == "no"
        assert await answer.content.readuntil(b"\n\n") == b":\n\n"
        await program.says(b"\xc3")
        await program.says(b'\xa9"\n')
        assert await answer.content.readuntil(b"\n\n") == b'event: stdout\ndata: {"data":"\xc3\xa9\\"\\n"}\n\n'
        program.ended.set_result(result())
        told = await lines(answer)
    assert told[0] == "event: result"
    assert json.loads(told[1].removeprefix("data: "))["exitCode"] == 0
    assert len(told) == 2


async def test_half_a_character_at_the_end_is_replaced(api: Api, program: Program) -> None:
    async with streamed(api, await api.session()) as answer:
        await program.says(b"a\xf0\x9f")
        program.ended.set_result(result())
        told = await lines(answer)
    assert [line for line in told if "data" in line][:2] == ['data: {"data":"a"}', 'data: {"data":"\ufffd"}']


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (result(exit_code=137, out_of_memory=True), "memory_limit_exceeded"),
        (result(exit_code=1, disk_full=True), "disk_full"),
        (SandboxGone("killed"), "invalid_state"),
    ],
)
async def test_a_failed_stream_ends_with_one_error_event(
    api: Api, program: Program, made: RunResult | Exception, code: str
) -> None:
    async with streamed(api, await api.session()) as answer:
        await program.says(b"partial")
        if isinstance(made, Exception):
            program.ended.set_exception(made)
        else:
            program.ended.set_result(made)
        told = await lines(answer)
    assert [line for line in told if line.startswith("event")] == ["event: stdout", "event: error"]
    assert json.loads(told[-1].removeprefix("data: "))["code"] == code


async def test_comments_fill_silence(api: Api, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)
    async with streamed(api, await api.session()) as answer:
        for _ in range(3):
            while await answer.content.readline() != b": heartbeat\n":
                pass
        program.ended.set_result(result())
        assert (await lines(answer))[-2] == "event: result"


async def test_a_stream_of_a_host_that_lapses_is_cut_while_it_is_silent(
    api: Api, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)
    async with streamed(api, await api.session()) as answer:
        await answer.content.readuntil(b"\n\n")
        api.owners.acts = False
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await eventually(lambda: program.left)


async def test_a_client_that_leaves_ends_the_run(api: Api, program: Program) -> None:
    async with streamed(api, await api.session()) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    async with asyncio.timeout(SECONDS):
        await eventually(lambda: program.left)


async def test_a_client_that_reads_nothing_is_dropped_after_a_while(
    api: Api, program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "STALL_SECONDS", 0.3)
    with caplog.at_level(logging.ERROR):
        async with streamed(api, await api.session()) as answer:

            async def floods() -> None:
                while True:
                    await program.says(b"x" * 100_000)

            flood = asyncio.create_task(floods())
            answer.content._protocol.pause_reading()
            async with asyncio.timeout(SECONDS):
                await eventually(lambda: program.left or flood.done())
            flood.cancel()
            await asyncio.wait({flood})
    assert not caplog.records


async def test_a_failure_before_the_stream_starts_is_an_ordinary_answer(api: Api) -> None:
    session = await api.session()

    async def refusal(body: dict[str, object], **headers: str) -> tuple[int, str]:
        return (await api.call("POST", "/execute", {"stream": True, **body}, **headers)).refusal

    assert await refusal({"sessionId": "ses_" + "0" * 18, "code": "1"}) == (404, "session_not_found")
    assert await refusal({"sessionId": session}) == (400, "invalid_request")
    assert await refusal({"sessionId": session, "code": "1", "timeout": 301}) == (400, "invalid_request")
    assert await refusal({"sessionId": session, "code": "1"}, Idempotency_Key="a") == (400, "invalid_request")


async def test_streams_count_for_the_session_and_for_the_account(api: Api, program: Program) -> None:
    api.key = await api.account(name="two", streams_per_session=1, streams_per_account=2)
    one, two, three = [await api.session() for _ in range(3)]

    async def details(session: str) -> object:
        answer = await api.call("POST", "/execute", {"sessionId": session, "code": "1", "stream": True})
        assert answer.refusal == (429, "resource_limit_exceeded")
        return answer.error["details"]["scope"], answer.error["details"]["limit"]

    async with streamed(api, one):
        assert await details(one) == ("session", 1)
        async with streamed(api, two):
            assert await details(three) == ("account", 2)
            program.ended.set_result(result())
    async with asyncio.timeout(SECONDS):
        while (await api.call("POST", "/execute", {"sessionId": one, "code": "1", "stream": True})).status != 200:
            pass


async def test_a_server_that_stops_says_so_in_a_stream() -> None:
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    out = streaming.Out(open_exchange({"method": "POST", "headers": []}), send)
    begun = asyncio.Event()

    async def runs() -> None:
        await out.begin_events()
        begun.set()
        await asyncio.get_running_loop().create_future()

    answering = asyncio.create_task(streaming.perform(out, runs, receive, None))
    await begun.wait()
    answering.cancel()
    await answering
    assert sent[-2].startswith(b'event: error\ndata: {"code":"unavailable"')
