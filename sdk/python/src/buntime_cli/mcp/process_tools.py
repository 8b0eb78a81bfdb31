"""Tools for background processes and previews."""

import asyncio
from contextlib import nullcontext
from typing import Annotated, Any

from buntime_sdk import AsyncProcess, AsyncSession, BuntimeError, InvalidRequest, ProcessNotFound
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import (
    Logs,
    Previewed,
    Processes,
    ProcessShown,
    ProcessState,
    Started,
    answer,
    in_tool_words,
)
from buntime_cli.mcp.logs import Log, log_part, whole_log
from buntime_cli.mcp.output import cut
from buntime_cli.mcp.process_state import how_ended, state_of
from buntime_cli.mcp.run_tools import Session, WorkingDir
from buntime_cli.mcp.run_watch import progress, readable
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

ProcessName = Annotated[
    str, Field(description="The process's id (proc_…), or its name: the newest of that name.", min_length=1)
]
SHOWN_PROCESSES = 50
PROBE_SECONDS = 5
LOOKS = (0.05, 0.2, 0.5, 1.25)  # seconds between looks at a process that got a signal
COMMAND = 200  # shown characters of a command
BOTH = "start_process takes wait_for_port or wait_for_output, not both."


class ProcessTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def start_process(
        self,
        context: Context[Any, Any],
        command: Annotated[str, Field(description="A bash command.")],
        name: Annotated[
            str | None, Field(description="Your name for it, which the other tools accept in place of the id.")
        ] = None,
        wait_for_port: Annotated[int | None, Field(description="Wait until something listens on this port.")] = None,
        wait_for_output: Annotated[
            str, Field(description="Wait until a line of output matches this regular expression.")
        ] = "",
        wait_seconds: Annotated[int, Field(description="Seconds to wait for the port or output.", ge=1, le=300)] = 30,
        working_dir: WorkingDir = "/workspace",
        env: Annotated[
            dict[str, str] | None, Field(description="Environment variables for it, besides the session's.")
        ] = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, Started]:
        """Start a server or another long program in the background. It keeps running after this call.

        For a server, pass wait_for_port: the result then says whether it is ready. Returns the process's id, its state,
        and the beginning and end of its output so far. Read more with process_logs. Show a server to the user with
        preview_url; port 8080 needs no token. Deep sleep ends the process.
        """
        if wait_for_port is not None and wait_for_output:
            raise InvalidRequest(BOTH, code="invalid_request")
        waits = wait_seconds if wait_for_port is not None or wait_for_output else None
        awaited = "output" if wait_for_port is None else f"port {wait_for_port}"
        async with self._tool_context.session(context, session) as opened:
            telling = nullcontext() if waits is None else progress(context, lambda: f"waiting for {awaited}", waits)
            async with telling:
                process = await opened.session.processes.start(
                    command,
                    env=env,
                    working_dir=working_dir or None,
                    name=name,
                    wait_for_port=wait_for_port,
                    wait_for_output=wait_for_output or None,
                    wait_timeout=waits,
                )
            log = await whole_log(process)
            if log.last.status != process.status:
                await process.refresh()
            return _started(note(opened), process, state_of(process, wait_for_port, waits), log)

    @telling_errors
    async def process_logs(
        self,
        context: Context[Any, Any],
        process: ProcessName,
        cursor: Annotated[
            int | None, Field(description="The cursor of an earlier result, to read what follows. 0 is the beginning.")
        ] = None,
        skip: Annotated[
            int, Field(description="Characters after the cursor to leave out, if an earlier result says so.", ge=0)
        ] = 0,
        session: Session = None,
    ) -> Annotated[CallToolResult, Logs]:
        """Read the output, status and exit code of a process.

        Without a cursor, reads the whole log: a long one is cut to its beginning and end, and the result names a file
        with all of it. With a cursor, reads what follows, at most 16,000 characters at a time: pass the cursor and skip
        of each result to the next call. Returns at once: it does not wait for new output.
        """
        async with self._tool_context.session(context, session) as opened:
            found = await _find(opened.session, process)
            if cursor is not None or skip:
                part = await log_part(found, cursor or 0, skip)
                return _logs(note(opened), part.text, part)
            log = await whole_log(found)
            output, _ = await readable(opened.session, "log", log.text, found.id)
            return _logs(note(opened), output, log)

    @telling_errors
    async def list_processes(
        self, context: Context[Any, Any], session: Session = None
    ) -> Annotated[CallToolResult, Processes]:
        """List the session's newest 50 processes, including ended ones: ids, names, status, exit codes, commands."""
        async with self._tool_context.session(context, session) as opened:
            some, _ = await opened.session.processes.list(page_size=SHOWN_PROCESSES).page()
            lines = [
                f"{one.id}  {one.status} {how_ended(one)}  {one.name or ''}  {one.command[:COMMAND]}" for one in some
            ]
            values = {**note(opened), "processes": [_shown(one) for one in some]}
            return answer("\n".join(lines) or "(none)", values)

    @telling_errors
    async def send_input(
        self,
        context: Context[Any, Any],
        process: ProcessName,
        text: Annotated[str, Field(description="The text to write. End a line with a line break.")],
        close: Annotated[
            bool, Field(description="Close the input afterwards, so that the program sees its end.")
        ] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, ProcessState]:
        """Write to the standard input of a process. See the effect with process_logs."""
        async with self._tool_context.session(context, session) as opened:
            found = await (await _find(opened.session, process)).input(text, close=close)
            return answer(f"Sent. The process is {found.status}.", {**note(opened), "process": _shown(found)})

    @telling_errors
    async def stop_process(
        self,
        context: Context[Any, Any],
        process: ProcessName,
        signal: Annotated[str, Field(description="SIGTERM, SIGINT, SIGKILL, … SIGKILL cannot be ignored.")] = "SIGTERM",
        session: Session = None,
    ) -> Annotated[CallToolResult, ProcessState]:
        """Send a signal to a process and everything that it started. Says how it ended, if it does within 2 seconds."""
        async with self._tool_context.session(context, session) as opened:
            found = await (await _find(opened.session, process)).signal(signal)
            await _soon_ended(found)
            text = f"Sent {signal} to {found.id}, which still runs. See process_logs for how it ends."
            if found.status != "running":
                text = f"{found.id} has ended, {how_ended(found) or found.status}."
            return answer(text, {**note(opened), "process": _shown(found)})

    @telling_errors
    async def preview_url(
        self,
        context: Context[Any, Any],
        port: Annotated[int, Field(description="The port that the server listens on.", ge=1024, le=65535)] = 8080,
        session: Session = None,
    ) -> Annotated[CallToolResult, Previewed]:
        """Get the URL at which the user's browser sees a server in the session.

        Start the server first, with start_process. Returns the URL, and whether a program listens on the port. Anyone
        with the URL of port 8080 can open it. Another port's URL has a token, which is valid for an hour.
        """
        async with self._tool_context.session(context, session) as opened:
            preview = (await opened.session.refresh()).preview
            is_open = preview.visibility == "public" and port in preview.ports
            token = None if is_open else await opened.session.preview_token(port=port)
            url = opened.session.preview_url(port) if token is None else token.url
            values: dict[str, object] = {**note(opened), "url": url, "port": port, "open": is_open}
            if (listening := await _listens(opened.session, port)) is None:
                return answer(url, values)
            said = "A program listens" if listening else "Nothing listens"
            advice = "" if listening else " Start a server with start_process and wait_for_port."
            return answer(f"{url}\n{said} on port {port}.{advice}", {**values, "listening": listening})


async def _find(session: AsyncSession, name: str) -> AsyncProcess:
    """The process with that id, or the newest one with that name. Raises ProcessNotFound."""
    if name.startswith("proc_"):
        return await session.processes.get(name)
    async for process in session.processes.list(page_size=SHOWN_PROCESSES):
        if process.name == name:
            return process
    raise ProcessNotFound(f"No process has the name {name}.", code="process_not_found")


async def _soon_ended(process: AsyncProcess) -> None:
    """Waits a moment for the process to end."""
    for pause in LOOKS:
        if process.status != "running":
            return
        await asyncio.sleep(pause)
        await process.refresh()


async def _listens(session: AsyncSession, port: int) -> bool | None:
    """Whether a program accepts connections where visitors are led to; None if the session cannot tell now."""
    try:
        probe = await session.execute_command(f"exec 3<>/dev/tcp/127.0.0.1/{port}", timeout=PROBE_SECONDS)
    except BuntimeError:
        return None
    return None if probe.timed_out else probe.ok


def _started(about: dict[str, str], process: AsyncProcess, state: str, log: Log) -> CallToolResult:
    output = cut(in_tool_words(log.text), "process_logs names a file with all of it")
    values: dict[str, object] = {**about, "process": _shown(process), "output": output}
    if process.ready is not None:
        values["ready"] = process.ready
    if process.port_was_in_use:
        values["portWasInUse"] = True
    dropped = _dropped(log.dropped)
    return answer(f"{state}\n{dropped}" + (f"output so far:\n{output}" if output else "(no output so far)"), values)


def _logs(about: dict[str, str], output: str, log: Log) -> CallToolResult:
    last = log.last
    values: dict[str, object] = {
        **about,
        "output": output,
        "cursor": log.cursor,
        "dropped": log.dropped,
        "status": last.status,
        "exitCode": last.exit_code,
    }
    skip = ""
    if log.skip:
        values["skip"] = log.skip
        skip = f" and skip {log.skip}"
    ended = "" if last.exit_code is None else f" with exit code {last.exit_code}"
    text = f"{_dropped(log.dropped)}{output or '(no output)'}\n\n{last.status}{ended}"
    return answer(f"{text}; continue with cursor {log.cursor}{skip}", values)


def _dropped(size: int) -> str:
    return f"{size} older bytes are no longer kept.\n" if size else ""


def _shown(process: AsyncProcess) -> ProcessShown:
    return ProcessShown(
        process=process.id,
        name=process.name,
        status=process.status,
        exitCode=process.exit_code,
        reason=process.reason,
        command=process.command[:COMMAND],
    )
