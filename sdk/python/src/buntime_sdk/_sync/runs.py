# Made by `generate` from ../_async/runs.py: change that.
"""Runs: one request to its end, or a stream of what happens."""

import base64
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from buntime_sdk._sync.calls import Call, Calls, broken_stream
from buntime_sdk.errors import ConnectionFailed, RequestTimeout
from buntime_sdk.events import ServerEvent
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
    from_wire,
)
from buntime_sdk.waiting import Reader

LONGEST_RUN = 3600  # seconds: the most that a plan gives a run which names no timeout


def execute[R: ExecutionResult](
    calls: Calls, kind: type[R], request: Mapping[str, Any], timeout: int | None, key: str | None
) -> R:
    """`timeout`: that of the session, where it is known."""
    waits = request.get("timeout") or timeout or LONGEST_RUN
    return from_wire(kind, calls.json(Call("POST", "/execute", json=request, key=key, waits=waits)))


class RunStream:
    """A run as it happens: iterate over its events, the last of which is its `Result`.

    Nothing is sent before the first event is asked for. Leaving its block, or `close`, ends the run, unless it is
    detached. Raises, while it is read, what a limit or the session's end makes of the run, and ConnectionFailed where
    the connection breaks.
    """

    def __init__(self, calls: Calls, request: Mapping[str, Any]) -> None:
        self._events = Reader(_read(calls, {**request, "stream": True}))
        self._result: ExecutionResult | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunEvent:
        event = self._events.read()
        if isinstance(event, Result):
            self._result = event.result
        return event

    def close(self) -> None:
        """Ends the run, unless it is detached or has ended; also for a task that is reading it."""
        self._events.close()

    def result(self) -> ExecutionResult:
        """Reads to the end. Output that was not read before is in `stdout` and `stderr`."""
        written: dict[type, list[str]] = {Stdout: [], Stderr: []}
        for event in self:
            if isinstance(event, Stdout | Stderr):
                written[type(event)].append(event.data)
        if self._result is None:
            raise broken_stream()
        return with_output(self._result, "".join(written[Stdout]), "".join(written[Stderr]))


def _read(calls: Calls, request: Mapping[str, Any]) -> Generator[RunEvent]:
    """Knows nothing of its stream, so that both are gone as soon as nobody reads, and with them the connection."""
    result: Result | None = None
    try:
        with calls.events(Call("POST", "/execute", json=request)) as events, closing(events):
            for event in events:
                told = _event(event, is_context="contextId" in request)
                if isinstance(told, Result):
                    result = told  # the answer is read to its end, so that the connection can be used again
                elif told is not None:
                    yield told
    except (ConnectionFailed, RequestTimeout):
        if result is None:  # what breaks after it has taken nothing from it
            raise
    if result is None:
        raise broken_stream()
    yield result


def with_output(result: ExecutionResult, stdout: str, stderr: str) -> ExecutionResult:
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


def files_on_the_wire(files: Mapping[str, str | bytes] | Sequence[File] | None) -> list[dict[str, str]] | None:
    """`files`: path → content, or `File`s where a mode is wanted."""
    if files is None:
        return None
    listed = [File(path, content) for path, content in files.items()] if isinstance(files, Mapping) else files
    return [{"path": one.path, **content_on_the_wire(one.content), **_mode(one.mode)} for one in listed]


def content_on_the_wire(content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"content": content}
    return {"content": base64.b64encode(content).decode(), "encoding": "base64"}


def _mode(mode: str | None) -> dict[str, str]:
    return {} if mode is None else {"mode": mode}
