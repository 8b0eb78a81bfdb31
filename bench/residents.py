"""Programs of bench/inside, put into sessions and run there."""

import asyncio
from pathlib import Path

import msgspec

from bench.client import Client

INSIDE = Path(__file__).with_name("inside")
FILL_SECONDS = 300
END_SECONDS = 30.0
# Writes a small file three times a second. The shell itself waits: a `sleep` would be a process each time.
SCRIBBLE = """exec 9<> <(:); n=0
while :; do n=$((n + 1)); echo "$n" > "scribble$((n % 10))"; read -r -t 0.33 -u 9; done"""


async def put(client: Client, session: str, program: str) -> None:
    """Writes the program into the session's working directory."""
    content = (INSIDE / program).read_text()
    await client.ask("/files/write", sessionId=session, path=program, content=content)


async def fill(client: Client, session: str, directory: str, files: int, size: int, kind: str) -> None:
    """Writes files of `size` bytes each; `kind`: `random` or `text`."""
    await put(client, session, "fill.py")
    command = f"python3 fill.py {directory} {files} {size} {kind}"
    await client.execute(session, command=command, timeout=FILL_SECONDS)


async def start(client: Client, session: str, command: str, until: str = "") -> str:
    """Starts a process and returns its id, once a line of its output matches `until`. Raises RuntimeError if none
    does."""
    wait = {"waitFor": {"output": until, "timeout": 60}} if until else {}
    started = await client.ask("/processes/start", sessionId=session, command=command, **wait)
    if until and not started["ready"]:
        raise RuntimeError(f"{command!r} did not say {until!r}: {started}")
    return str(started["processId"])


async def end(client: Client, session: str, process: str) -> None:
    """Ends the process with SIGTERM and waits for that."""
    await client.ask("/processes/signal", sessionId=session, processId=process, signal="SIGTERM")
    async with asyncio.timeout(END_SECONDS):
        while await _runs(client, session, process):  # noqa: ASYNC110 - the session's
            await asyncio.sleep(0.1)


async def _runs(client: Client, session: str, process: str) -> bool:
    told = await client.get("/processes/get", {"sessionId": session, "processId": process})
    return bool(msgspec.json.decode(told)["status"] == "running")
