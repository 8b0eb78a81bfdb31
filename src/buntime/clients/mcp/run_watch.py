"""A run that is watched: output is kept, progress is told, and leaving ends it."""

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

from buntime.clients.mcp.output import SHOWN, Kept, cut

PROGRESS_SECONDS = 1.0
OUTPUT_FOLDER = "/tmp/buntime-output"  # in the session


@dataclass(slots=True)
class Watched:
    result: ExecutionResult
    displayed: list[Forms] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)  # stdout, stderr, and the files with more of them


async def watch(context: Context[Any, Any], session: AsyncSession, stream: AsyncRunStream, seconds: float) -> Watched:
    """`seconds`: that the run may take, for whoever watches. A call that is cancelled ends the run."""
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
    except BuntimeError as failure:  # a stream's error comes without the output before it
        failure.details = {**failure.details, "stdout": kept[Stdout].whole(), "stderr": kept[Stderr].whole()}
        raise
    assert result is not None, "a stream ends with its result or raises"
    shown = await _shown(session, "stdout", kept[Stdout]) | await _shown(session, "stderr", kept[Stderr])
    return Watched(result, displayed, shown)


@asynccontextmanager
async def progress(context: Context[Any, Any], message: Callable[[], str], seconds: float) -> AsyncIterator[None]:
    """Whoever watches is told each second how far it is. `seconds`: that it may take."""
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
            telling.exception()  # a client that takes no progress is no failure of the run


async def _shown(session: AsyncSession, name: str, kept: Kept) -> dict[str, str]:
    return named(name, *await readable(session, name, kept.whole()))


def named(name: str, text: str, path: str | None) -> dict[str, str]:
    """What `readable` gives, as values."""
    return {name: text} if path is None else {name: text, f"{name}File": path}


async def readable(session: AsyncSession, name: str, whole: str, of: str | None = None) -> tuple[str, str | None]:
    """What is shown of a text, and the file in the session that has all of it, where it is cut.

    `of`: what it is the text of; a later one of the same takes the file's place.
    """
    if len(whole) <= SHOWN:
        return whole, None
    path = f"{OUTPUT_FOLDER}/{of or secrets.token_hex(4)}.{name}.txt"
    try:
        await session.files.upload(io.BytesIO(whole.encode()), path)  # of any size, unlike write
    except BuntimeError as refused:  # what was asked for is done
        return cut(whole, f"they could not be kept ({refused.code})"), None
    return cut(whole, f"read_file {path}"), path
