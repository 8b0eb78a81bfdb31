"""Running one program, from the request to its outcome."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping

import msgspec

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import ExecutionTimeout
from buntime.inside import NoTickets, Sink
from buntime.ports import OUTPUT_LIMIT, Bringing, Run
from buntime.sandboxes.guest.client import LARGEST_NUMBER, Count, Guest, Nothing
from buntime.sandboxes.guest.failures import NotKnown
from buntime.sandboxes.guest.outcomes import Outcome, read_outcome, stream_outcome


class _Fed(msgspec.Struct):
    open: bool


class _Brought(msgspec.Struct):
    missing: Count
    open: bool  # the program still reads


async def run_program(
    guest: Guest, spare: int, run: Run, env: Mapping[str, str], sink: Sink | None = None, *, prepared: bool = False
) -> Outcome:
    """Sends output to the sink if there is one, without a limit. Raises SpareGone, Unfit for a prepared process, and
    what the sink and the parts of the input raise."""
    if run.parts is None and run.bringing is None:
        return await _run(guest, spare, run, env, sink, "", "/prepared/run" if prepared else "/run")
    name = secrets.token_hex(8)
    running = asyncio.create_task(_run(guest, spare, run, env, sink, name), name="fed run")
    feeding = asyncio.create_task(_feed(guest, name, run), name="feed")
    try:
        await asyncio.wait({running, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await feeding
        return await running
    finally:
        await cancel_and_wait(running)
        await cancel_and_wait(feeding)


async def _feed(guest: Guest, name: str, run: Run) -> None:
    """Feeds the run until it reads no more."""
    if not (await guest.call("GET", "/feed", {"name": name}, _Fed)).open:
        return
    if run.bringing is not None:
        await _bring(guest, name, run.bringing)
    async for part in run.parts or _nothing():
        if not await _fed(guest, name, part):
            return
    await _fed(guest, name, b"")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _bring(guest: Guest, name: str, bringing: Bringing) -> None:
    """Lets the edge feed the run. Raises NoTickets."""
    ticket = {"ticket": bringing.ticket.secret}
    try:
        await guest.call("POST", "/feed/edge", {"name": name, "size": str(bringing.size), **ticket}, Nothing)
    except NotKnown:
        raise NoTickets from None
    await bringing.carry(bringing.ticket)
    brought = await guest.call("GET", "/feed/edge", ticket, _Brought)
    if brought.missing and brought.open:
        raise ExecutionTimeout("The program does not take its input.")


async def _fed(guest: Guest, name: str, content: bytes) -> bool:
    return (await guest.call("POST", "/feed", {"name": name}, _Fed, content)).open


async def _run(
    guest: Guest, spare: int, run: Run, env: Mapping[str, str], sink: Sink | None, feed: str, path: str = "/run"
) -> Outcome:
    body = {
        "env": dict(env),
        "cwd": run.working_dir,
        "stdin": base64.b64encode(run.stdin).decode(),
        "maxOutput": OUTPUT_LIMIT if sink is None else LARGEST_NUMBER,
        "live": sink is not None,
        "feed": feed,
    }
    body |= {"code": run.code} if run.code is not None else {"command": run.command or ""}
    if run.edge:
        body["edge"] = run.edge
    async with guest.request("POST", path, {"spare": str(spare)}, msgspec.json.encode(body)) as answer:
        return await (read_outcome(answer) if sink is None else stream_outcome(answer, sink))
