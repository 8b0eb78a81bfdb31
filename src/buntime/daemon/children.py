"""Runs a program for as long as the server runs, such as nginx.

The program dies with the server: the kernel signals it, even when the server is killed. It is started again when it
ends, and stopped when its task is cancelled. Its stderr goes to the log.
"""

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

LONGEST_LINE = 4096  # bytes; a longer line of stderr is not logged


@dataclass(frozen=True, slots=True)
class Program:
    name: str  # in the log
    argv: tuple[str, ...]
    stop_seconds: float = 5.0  # from SIGTERM to SIGKILL
    first_delay: float = 0.1  # seconds before it is started again; each failure doubles it …
    longest_delay: float = 5.0  # … up to this
    steady_after: float = 10.0  # seconds; a program that ran this long gets the first delay again


async def keep_running(program: Program) -> None:
    """Starts the program, and starts it again whenever it ends. Cancelling stops it within `stop_seconds`.

    Call it on the main thread: the kernel ends a child together with the thread that started it.
    """
    delay = program.first_delay
    while True:
        started = time.monotonic()
        ended = await _run(program)
        if time.monotonic() - started >= program.steady_after:
            delay = program.first_delay
        log.warning("child_ended", child=program.name, exit=ended, again_in=delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, program.longest_delay)


def kill_group(group: int, number: signal.Signals) -> None:
    """Signals all processes of a group. The group may be empty."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


async def _run(program: Program) -> int | str:
    """Runs the program once, to its end. Returns its exit code (negative: the signal), or why it did not start."""
    starting = asyncio.create_task(_start(program), name=f"start of {program.name}")
    try:
        process = await asyncio.shield(starting)
    except OSError as failed:
        return str(failed)
    except asyncio.CancelledError:  # asyncio would kill the child alone, and leave what it has started
        with suppress(OSError):
            await _stop(await starting, program.stop_seconds)
        raise
    assert process.stderr is not None
    reading = asyncio.create_task(_log_lines(process.stderr, program.name), name=f"stderr of {program.name}")
    try:
        code = await process.wait()
        await asyncio.wait({reading}, timeout=1.0)  # a child that outlives it may hold stderr open
        return code
    finally:
        await asyncio.shield(_stop(process, program.stop_seconds))
        reading.cancel()


async def _start(program: Program) -> Process:
    """Starts the child as the leader of a session of its own. Raises OSError.

    Ctrl-C in a terminal then reaches the server alone, which stops its children in order. One signal can end the child
    and everything that it has started.
    """
    return await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "TERM", *program.argv),
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, start_new_session=True, limit=LONGEST_LINE,
    )  # fmt: skip


async def _stop(process: Process, seconds: float) -> None:
    """Ends the process and what is left of its group."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
    kill_group(process.pid, signal.SIGKILL)
    await process.wait()


async def _log_lines(stderr: asyncio.StreamReader, name: str) -> None:
    while True:
        try:
            line = await stderr.readline()
        except ValueError:  # longer than LONGEST_LINE: dropped
            continue
        if not line:
            return
        log.warning("child_says", child=name, line=line.decode(errors="replace").rstrip())
