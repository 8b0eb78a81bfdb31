"""Waits until a process is ready: a new socket listens on a port, or the process printed a certain line.

A socket that listened before the process started says nothing about the process.
ripgrep searches the lines, in a run inside the session. It takes linear time, and the session's CPU time instead of
the server's.
"""

import asyncio
from collections.abc import Set
from dataclasses import dataclass

from buntime import errors
from buntime.ports import Run, Sandbox

LONGEST_PATTERN = 1000  # characters
LONGEST_WAIT = 300  # seconds
KEPT = 64 << 10  # newest bytes of an unfinished line
SEARCH_SECONDS = 5.0
SEARCH = 'exec /usr/bin/rg --no-config -q -a -e "$PATTERN" -'
MATCHED, NOT_MATCHED = 0, 1  # its exit codes
FIRST_LOOK, SLOWEST_LOOK = 0.01, 0.25  # seconds between two looks at a port
GATHER_SECONDS = 0.1  # between two searches, for more output to come


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Has exactly one of `port` and `output`."""

    port: int | None = None
    output: str | None = None  # a regular expression
    timeout: float = 30  # seconds


def check_wait(wait: WaitFor) -> None:
    """Raises InvalidRequest."""
    if (wait.port is None) == (wait.output is None):
        raise errors.InvalidRequest("waitFor", "waitFor takes exactly one of port and output.")
    if wait.port is not None and not 1 <= wait.port <= 65535:
        raise errors.InvalidRequest("waitFor.port", f"waitFor.port must be 1 to 65535, not {wait.port}.")
    if wait.output is not None and (not 0 < len(wait.output) <= LONGEST_PATTERN or "\0" in wait.output):
        raise errors.InvalidRequest(
            "waitFor.output",
            f"waitFor.output must be a regular expression of 1 to {LONGEST_PATTERN} characters.",
            limit=LONGEST_PATTERN,
        )
    if not 1 <= wait.timeout <= LONGEST_WAIT:
        raise errors.InvalidRequest(
            "waitFor.timeout", f"waitFor.timeout must be 1 to {LONGEST_WAIT} seconds.", limit=LONGEST_WAIT
        )


async def check_pattern(sandbox: Sandbox, wait: WaitFor) -> None:
    """Raises InvalidRequest for an invalid regular expression."""
    if wait.output is None:
        return
    result = await sandbox.run(Run(SEARCH_SECONDS, command=SEARCH, env={"PATTERN": wait.output}))
    if result.exit_code not in (MATCHED, NOT_MATCHED):
        why = result.stderr.decode(errors="replace").strip()[:500]
        raise errors.InvalidRequest("waitFor.output", f"waitFor.output is not a valid regular expression: {why}")


async def listeners_before(sandbox: Sandbox, wait: WaitFor) -> Set[int]:
    """The sockets that listen on the port before the process starts, for `is_ready`."""
    return set() if wait.port is None else await sandbox.processes.listeners(wait.port)


async def is_ready(sandbox: Sandbox, process_id: str, wait: WaitFor, before: Set[int]) -> bool:
    """Waits until the process is ready, has ended, or the time is over."""
    try:
        async with asyncio.timeout(wait.timeout):
            if wait.port is not None:
                return await _listens(sandbox, process_id, wait.port, before)
            return await _says(sandbox, process_id, wait.output or "")
    except TimeoutError:
        return False


async def _listens(sandbox: Sandbox, process_id: str, port: int, before: Set[int]) -> bool:
    pause = FIRST_LOOK
    while True:
        status = (await sandbox.processes.get(process_id)).status  # first: a daemon listens before its parent ends
        if await sandbox.processes.listeners(port) - before:
            return True
        if status != "running":
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, SLOWEST_LOOK)


async def _says(sandbox: Sandbox, process_id: str, pattern: str) -> bool:
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    async with sandbox.processes.follow(process_id, 0) as pages:
        async for page in pages:
            if page.entries:
                for entry in page.entries:
                    kept[entry.stream] += entry.content
                text = b"\n".join(bytes(content) for content in kept.values())
                run = Run(SEARCH_SECONDS, command=SEARCH, env={"PATTERN": pattern}, stdin=text)
                if (await sandbox.run(run)).exit_code == MATCHED:
                    return True
                for content in kept.values():  # complete lines were searched
                    del content[: content.rfind(b"\n") + 1]
                    del content[:-KEPT]
            await asyncio.sleep(0 if page.last else GATHER_SECONDS)
    return False
