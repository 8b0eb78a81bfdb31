"""Watches a run: keeps its output, reports progress, and ends it if the call is cancelled."""

import asyncio
import io
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from buntime_sdk import (
    AsyncRunStream,
    AsyncSession,
    BuntimeError,
    Displayed,
    ExecutionResult,
    Forms,
    Result,
    Stderr,
    Stdout,
)
from mcp.server.mcpserver import Context

from buntime_cli.mcp.output import SHOWN, Kept, cut

PROGRESS_SECONDS = 1.0
OUTPUT_FOLDER = "/tmp/buntime-output"  # in the session


@dataclass(slots=True)
class Watched:
    result: ExecutionResult
    displayed: list[Forms] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)  # stdout, stderr, and the files with the whole output


async def watch(context: Context[Any, Any], session: AsyncSession, stream: AsyncRunStream, seconds: float) -> Watched:
    """Watches the run to its end. `seconds`: its time limit, for progress. Cancelling the call ends the run."""
    kept: dict[type, Kept] = {Stdout: Kept(), Stderr: Kept()}
    displayed: list[Forms] = []
    result: ExecutionResult | None = None

    def last_line() -> str:
        return kept[Stdout].last_line() or kept[Stderr].last_line() or "running"

    try:
        async with stream, progress(context, last_line, seconds):
            async for event in stream:
                if isinstance(event, Stdout | Stderr):
                    kept[type(event)].add(event.data)
                elif isinstance(event, Displayed):
                    displayed.append(event.value)
                elif isinstance(event, Result):
                    result = event.result
    except BuntimeError as failure:  # a stream's error does not include the earlier output
        failure.details = {**failure.details, "stdout": kept[Stdout].whole(), "stderr": kept[Stderr].whole()}
        raise
    assert result is not None, "a stream ends with its result or raises"
    shown = await _shown(session, "stdout", kept[Stdout]) | await _shown(session, "stderr", kept[Stderr])
    return Watched(result, displayed, shown)


@asynccontextmanager
async def progress(context: Context[Any, Any], message: Callable[[], str], seconds: float) -> AsyncIterator[None]:
    """Reports progress to the client every second. `seconds`: the longest that the work may take."""
    started = time.monotonic()

    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            await context.report_progress(round(time.monotonic() - started, 1), seconds, message())

    telling = asyncio.create_task(tell(), name="progress")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})
        if not telling.cancelled():
            telling.exception()  # a client that rejects progress does not fail the run


async def _shown(session: AsyncSession, name: str, kept: Kept) -> dict[str, str]:
    return named(name, *await readable(session, name, kept.whole()))


def named(name: str, text: str, path: str | None) -> dict[str, str]:
    """The result of `readable` as values."""
    return {name: text} if path is None else {name: text, f"{name}File": path}


async def readable(session: AsyncSession, name: str, whole: str, of: str | None = None) -> tuple[str, str | None]:
    """The shown part of a text, and the file in the session with all of it, if the text was cut.

    `of`: a name for the source of the text. Later text of the same source replaces the file.
    """
    if len(whole) <= SHOWN:
        return whole, None
    path = f"{OUTPUT_FOLDER}/{of or secrets.token_hex(4)}.{name}.txt"
    try:
        await session.files.upload(io.BytesIO(whole.encode()), path)  # any size, unlike write
    except BuntimeError as failed:  # the run itself succeeded
        return cut(whole, f"they could not be saved ({failed.code})"), None
    return cut(whole, f"read_file {path}"), path
