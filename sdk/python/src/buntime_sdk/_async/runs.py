"""Runs: a request for the whole result, or a stream of events."""

import base64
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from buntime_sdk._async.calls import AsyncCalls, Call, broken_stream
from buntime_sdk.arguments import AnyPath, path_text, refusal
from buntime_sdk.errors import ConnectionFailed, RequestTimeout
from buntime_sdk.events import ServerEvent
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import (
    Displayed,
    Evaluation,
    ExecutionResult,
    File,
    Forms,
    ProcessStarted,
    Result,
    RunEvent,
    Stderr,
    Stdout,
)
from buntime_sdk.waiting import AsyncReader, async_tell

Listener = Callable[[str], object]  # gets a piece of output; in the async half it may be a coroutine function

R = TypeVar("R", bound=ExecutionResult)

LONGEST_RUN = 3600  # seconds: the longest that any plan runs a program whose request names no timeout


async def execute(
    calls: AsyncCalls,
    kind: type[R],
    request: Mapping[str, Any],
    timeout: int | None,
    key: str | None,
    on_stdout: Listener | None,
    on_stderr: Listener | None,
) -> R:
    """`timeout`: the session's, if known. With a listener, the output is streamed."""
    if on_stdout is None and on_stderr is None:
        waits = request.get("timeout") or timeout or LONGEST_RUN
        return from_wire(kind, await calls.json(Call("POST", "/execute", json=request, key=key, waits=waits)))
    if key is not None:
        message = "idempotency_key cannot be combined with on_stdout or on_stderr: streamed output is not kept."
        raise refusal("idempotency_key", message)
    async with AsyncRunStream(calls, request) as stream:
        result = await stream.result(on_stdout=on_stdout, on_stderr=on_stderr)
    assert isinstance(result, kind)
    return result


class AsyncRunStream:
    """Streams a run's events. The last event is its `Result`.

    The request is sent when you ask for the first event. Leaving the block, or `close`, ends the run unless it is
    detached. Reading raises an error when a limit or the end of the session stops the run, and ConnectionFailed when
    the connection breaks.
    """

    def __init__(self, calls: AsyncCalls, request: Mapping[str, Any]) -> None:
        self._events = AsyncReader(_read(calls, {**request, "stream": True}))
        self._result: ExecutionResult | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        event = await self._events.read()
        if isinstance(event, Result):
            self._result = event.result
        return event

    async def close(self) -> None:
        """Ends the run, unless it is detached or has ended, even while another task reads the stream."""
        await self._events.close()

    async def result(self, *, on_stdout: Listener | None = None, on_stderr: Listener | None = None) -> ExecutionResult:
        """Reads to the end. The result has the output, and the displayed values of a context, that you have not read.

        `on_stdout`, `on_stderr`: called with each piece of that output as it arrives.
        """
        written: dict[type, list[str]] = {Stdout: [], Stderr: []}
        displayed: list[Forms] = []
        async for event in self:
            if isinstance(event, Displayed):
                displayed.append(event.value)
            if isinstance(event, Stdout | Stderr):
                written[type(event)].append(event.data)
                listener = on_stdout if isinstance(event, Stdout) else on_stderr
                if listener is not None:
                    await async_tell(listener, event.data)
        if self._result is None:
            raise broken_stream()
        return _with_output(self._result, "".join(written[Stdout]), "".join(written[Stderr]), displayed)


async def _read(calls: AsyncCalls, request: Mapping[str, Any]) -> AsyncGenerator[RunEvent]:
    """Holds no reference to its stream, so both are freed, and the connection with them, once nobody reads."""
    result: Result | None = None
    try:
        async with calls.events(Call("POST", "/execute", json=request)) as events, aclosing(events):
            async for event in events:
                told = _event(event, is_context="contextId" in request)
                if isinstance(told, Result):
                    result = told  # read on to the end, so that the connection can be reused
                elif told is not None:
                    yield told
    except (ConnectionFailed, RequestTimeout):
        if result is None:  # an error after the result loses nothing
            raise
    if result is None:
        raise broken_stream()
    yield result


def _with_output(result: ExecutionResult, stdout: str, stderr: str, displayed: Sequence[Forms]) -> ExecutionResult:
    if isinstance(result, Evaluation):
        result = replace(result, displayed=(*result.displayed, *displayed))
    return replace(result, stdout=stdout, stderr=stderr)


def _event(event: ServerEvent, *, is_context: bool) -> RunEvent | None:
    told = event.told
    match event.name:
        case "stdout":
            return Stdout(told["data"])
        case "stderr":
            return Stderr(told["data"])
        case "process":
            return ProcessStarted(told["processId"])
        case "displayed":
            return Displayed(from_wire(Forms, told))
        case "result":
            return Result(from_wire(Evaluation if is_context else ExecutionResult, told))
    return None


def files_on_the_wire(
    files: Mapping[AnyPath, str | bytes] | Sequence[File] | None,
) -> list[dict[str, str]] | None:
    """`files`: path → content, or `File`s to set modes."""
    if files is None:
        return None
    return [
        {"path": path_text(one.path), **content_on_the_wire(one.content), **_mode(one.mode)}
        for one in listed_files(files)
    ]


def listed_files(files: Mapping[AnyPath, str | bytes] | Sequence[File]) -> Sequence[File]:
    return [File(path, content) for path, content in files.items()] if isinstance(files, Mapping) else files


def content_on_the_wire(content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"content": content}
    return {"content": base64.b64encode(content).decode(), "encoding": "base64"}


def _mode(mode: str | None) -> dict[str, str]:
    return {} if mode is None else {"mode": mode}
