"""The fake for the async half."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from buntime_sdk import (
    AsyncFileWatch,
    AsyncRunStream,
    ConnectionFailed,
    Evaluation,
    FileChange,
    FileEvent,
    InvalidState,
    LogEntry,
    LogEvent,
    MemoryLimitExceeded,
    ProcessExit,
    Result,
    SessionNotFound,
    Stdout,
    Watching,
)
from buntime_sdk.testing import AsyncFakeBuntime, FakeResult, FakeRun

PATIENCE = 10.0  # seconds; a guard against a hang


async def test_a_session_runs_code_and_is_deleted() -> None:
    async with AsyncFakeBuntime() as fake:
        fake.on_execute("1 + 1", "2\n").on_execute("big", MemoryLimitExceeded("Full.", code="memory_limit_exceeded"))
        async with fake.sessions.create() as session:
            assert (await session.execute("1 + 1")).stdout == "2\n"
            with pytest.raises(MemoryLimitExceeded, match="Full"):
                await session.execute_command("big")
        with pytest.raises(SessionNotFound):
            await session.refresh()
        assert [one async for one in fake.sessions.list()] == []


async def test_runs_stream_and_contexts_return_values() -> None:
    fake = AsyncFakeBuntime().on_execute("a", FakeResult("one\ntwo\n", context_survived=True))
    session = await fake.sessions.create()
    async with session.stream("a") as stream:
        output = [event async for event in stream]
    assert output[:2] == [Stdout("one\n"), Stdout("two\n")]
    assert isinstance(output[2], Result)
    async with fake.sessions.open(session.id).contexts.create() as context:
        value = await context.execute("a")
    assert isinstance(value, Evaluation)
    assert value.context_survived is True


async def test_files_can_be_written_packed_and_watched() -> None:
    files = (await AsyncFakeBuntime().sessions.create()).files
    async with asyncio.timeout(PATIENCE), files.watch() as changes:
        later = asyncio.create_task(anext(_after_the_first(changes)))
        await files.write("a", b"\xff")
        assert await later == FileChange("created", "a", "file")
    assert [part async for part in files.chunks("a")] == [b"\xff"]
    assert [one.path async for one in files.list()] == ["a"]


async def _after_the_first(changes: AsyncFileWatch) -> AsyncGenerator[FileEvent]:
    assert await anext(changes) == Watching()
    async for change in changes:
        yield change


async def test_following_a_process_does_not_block_the_loop() -> None:
    fake = AsyncFakeBuntime().on_start("serve", FakeResult("up\n", running=True))
    session = await fake.sessions.create()
    process = await session.processes.start("serve")
    await process.input("typed")
    async with asyncio.timeout(PATIENCE):
        follow = asyncio.create_task(_read(process.follow()))
        await asyncio.sleep(0)
        await process.signal()
        output = await follow
        assert (await process.wait()).exit_code == 143
    assert isinstance(output[0], LogEntry)
    assert output[1] == ProcessExit("exited", 143, None)
    assert fake.input_of(session.id, process.id) == b"typed"


async def _read(events: AsyncGenerator[LogEvent]) -> list[LogEvent]:
    return [event async for event in events]


async def test_a_terminal_echoes_and_exits() -> None:
    def failed(run: FakeRun) -> FakeResult:
        return FakeResult(stderr=f"{run.kind}\n")

    session = await AsyncFakeBuntime().on_execute("ls", failed).sessions.create()
    async with asyncio.timeout(PATIENCE), session.terminal() as terminal:
        await terminal.write("ls\rexit\r")
        shown = b"".join([part async for part in terminal])
        assert shown == b"$ ls\r\nterminal\r\n$ exit\r\n"
        with pytest.raises(InvalidState, match="exited with code 0"):
            await terminal.write("more")


async def test_a_failed_connect_is_retried_but_a_broken_run_is_not() -> None:
    fake = AsyncFakeBuntime().on_execute("x", "done")
    fake.fail("POST", "/execute", ConnectionFailed("refused", begun=False))
    session = await fake.sessions.create()
    assert (await session.execute("x")).stdout == "done"
    fake.fail("POST", "/execute", ConnectionFailed("broke", begun=True))
    with pytest.raises(ConnectionFailed, match="broke"):
        await session.execute("x")
    assert len(fake.requests) == 4


@pytest.mark.parametrize("make", ["sessions", "contexts", "terminal"])
async def test_an_awaited_object_can_become_a_task(make: str) -> None:
    async with AsyncFakeBuntime() as fake:
        session = await fake.sessions.create()
        begin: dict[str, Callable[[], Any]] = {
            "sessions": fake.sessions.create,
            "contexts": session.contexts.create,
            "terminal": session.terminal,
        }
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            tasks = [group.create_task(begin[make]()) for _ in range(2)]
        assert len({task.result().id for task in tasks}) == 2
        for task in tasks:
            await (task.result().delete() if make != "terminal" else task.result().close())


@pytest.mark.parametrize("make", ["run", "watch"])
async def test_closing_a_stream_ends_it_for_the_task_that_reads_it(make: str) -> None:
    fake = AsyncFakeBuntime().on_start("serve", FakeResult("up\n", running=True))
    session = await fake.sessions.create()
    stream = session.stream_command("serve", detach=True) if make == "run" else session.files.watch()
    async with asyncio.timeout(PATIENCE):
        async with stream as events:
            reader = asyncio.create_task(_all_of(events))
            await asyncio.sleep(0.05)
            assert not reader.done()
        assert len(await reader) >= 1
        assert [event async for event in events] == []


async def _all_of(events: AsyncRunStream | AsyncFileWatch) -> list[object]:
    return [event async for event in events]


async def test_a_task_can_be_cancelled_while_it_reads() -> None:
    session = await AsyncFakeBuntime().sessions.create()
    async with asyncio.timeout(PATIENCE), session.files.watch() as events:
        reader = asyncio.create_task(_all_of(events))
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
