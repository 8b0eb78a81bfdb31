"""Tools for what goes on in the background, and where it is seen."""

from contextlib import nullcontext
from typing import Annotated, Any

from buntime_sdk import AsyncProcess, LogPage
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime.clients.mcp.answers import Logs, Previewed, Processes, ProcessShown, Started, answer
from buntime.clients.mcp.logs import Log, whole_log
from buntime.clients.mcp.output import cut
from buntime.clients.mcp.run_tools import Session
from buntime.clients.mcp.run_watch import progress, readable
from buntime.clients.mcp.tool_context import ToolContext, note, refusing

ProcessId = Annotated[str, Field(description="proc_…, from start_process or list_processes.")]
FIRST_OUTPUT = 4_000  # bytes of logs that start_process shows
LOG_BYTES = 16_000
SHOWN_PROCESSES = 50
COMMAND = 200  # characters of a command that are shown


class ProcessTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @refusing
    async def start_process(
        self,
        context: Context[Any, Any],
        command: Annotated[str, Field(description="For bash, in /workspace.")],
        name: Annotated[str | None, Field(description="For people.")] = None,
        wait_for_port: Annotated[int | None, Field(description="Until something listens there.")] = None,
        wait_for_output: Annotated[str, Field(description="Until a line matches this expression.")] = "",
        wait_seconds: Annotated[int, Field(description="How long to wait for that.", ge=1, le=300)] = 30,
        session: Session = None,
    ) -> Annotated[CallToolResult, Started]:
        """Start a server or another long program in the background; it goes on after this call.

        Give wait_for_port for a server: the result then says whether it is ready. Servers on port 8080 are seen by the
        user at preview_url. Its output is at process_logs. It ends with deep sleep.
        """
        waits = wait_seconds if wait_for_port is not None or wait_for_output else None
        awaited = "output" if wait_for_port is None else f"port {wait_for_port}"
        async with self._tool_context.session(context, session) as opened:
            telling = nullcontext() if waits is None else progress(context, lambda: f"waiting for {awaited}", waits)
            async with telling:
                process = await opened.session.processes.start(
                    command,
                    name=name,
                    wait_for_port=wait_for_port,
                    wait_for_output=wait_for_output or None,
                    wait_timeout=waits,
                )
            return _started(note(opened), process, _text(await process.logs(limit=FIRST_OUTPUT)))

    @refusing
    async def process_logs(
        self,
        context: Context[Any, Any],
        process: ProcessId,
        cursor: Annotated[int | None, Field(description="From an earlier result: what came after it.")] = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, Logs]:
        """Read what a process has written, and how it stands.

        Without a cursor it is all: of a long log the beginning and the newest are shown, and a file is named that has
        it. With the cursor of an earlier result it is what came after that, a part at a time.
        """
        async with self._tool_context.session(context, session) as opened:
            found = await opened.session.processes.get(process)
            log = await whole_log(found) if cursor is None else _part(await found.logs(cursor=cursor, limit=LOG_BYTES))
            output, _ = await readable(opened.session, "log", log.text, found.id if cursor is None else None)
            last = log.last
            values = {
                **note(opened),
                "output": output,
                "cursor": last.cursor,
                "dropped": log.dropped,
                "status": last.status,
                "exitCode": last.exit_code,
            }
            ended = "" if last.exit_code is None else f" with exit code {last.exit_code}"
            dropped = f"{log.dropped} older bytes are not kept.\n" if log.dropped else ""
            text = f"{dropped}{output or '(no output)'}\n\n{last.status}{ended}; go on with cursor {last.cursor}"
            return answer(text, values)

    @refusing
    async def list_processes(
        self, context: Context[Any, Any], session: Session = None
    ) -> Annotated[CallToolResult, Processes]:
        """List the processes that were started, the newest first, ended ones too."""
        async with self._tool_context.session(context, session) as opened:
            some, _ = await opened.session.processes.list(page_size=SHOWN_PROCESSES).page()
            lines = [f"{one.id}  {one.status} {_end(one)}  {one.name or ''}  {one.command[:COMMAND]}" for one in some]
            values = {**note(opened), "processes": [_shown(one) for one in some]}
            return answer("\n".join(lines) or "(none)", values)

    @refusing
    async def send_input(
        self,
        context: Context[Any, Any],
        process: ProcessId,
        text: Annotated[str, Field(description="With its line breaks.")],
        close: Annotated[bool, Field(description="End its input after this.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Started]:
        """Write to the standard input of a process."""
        async with self._tool_context.session(context, session) as opened:
            found = await (await opened.session.processes.get(process)).input(text, close=close)
            return answer(f"Sent. It {found.status}.", {**note(opened), "process": _shown(found), "output": ""})

    @refusing
    async def stop_process(
        self,
        context: Context[Any, Any],
        process: ProcessId,
        signal: Annotated[str, Field(description="SIGTERM, SIGINT, SIGKILL, …")] = "SIGTERM",
        session: Session = None,
    ) -> Annotated[CallToolResult, Started]:
        """Send a signal to a process and all that it has started."""
        async with self._tool_context.session(context, session) as opened:
            found = await (await opened.session.processes.get(process)).signal(signal)
            text = f"{signal} was sent to {found.id}; how it ended is told by process_logs."
            return answer(text, {**note(opened), "process": _shown(found), "output": ""})

    @refusing
    async def preview_url(
        self,
        context: Context[Any, Any],
        port: Annotated[int, Field(description="That a server in the session listens on.", ge=1024, le=65535)] = 8080,
        session: Session = None,
    ) -> Annotated[CallToolResult, Previewed]:
        """The URL at which the user's browser sees a server of the session. Start it first, with start_process.

        Port 8080 is open to whoever has the URL; for another port the URL has a token in it, for an hour.
        """
        async with self._tool_context.session(context, session) as opened:
            preview = (await opened.session.refresh()).preview
            is_open = preview.visibility == "public" and port in preview.ports
            token = None if is_open else await opened.session.preview_token(port=port)
            url = opened.session.preview_url(port) if token is None else token.url
            return answer(url, {**note(opened), "url": url, "port": port, "open": is_open})


def _started(about: dict[str, str], process: AsyncProcess, output: str) -> CallToolResult:
    values: dict[str, object] = {**about, "process": _shown(process), "output": output}
    state = "runs" if process.status == "running" else f"has ended ({_end(process)})"
    lines = [f"{process.id} {state}."]
    if process.ready is not None:
        values["ready"] = process.ready
        lines.append("It is ready." if process.ready else "It is NOT ready: look at its output.")
    return answer("\n".join([*lines, f"output so far:\n{output or '(none)'}"]), values)


def _shown(process: AsyncProcess) -> ProcessShown:
    return ProcessShown(
        process=process.id,
        name=process.name,
        status=process.status,
        exitCode=process.exit_code,
        reason=process.reason,
        command=process.command[:COMMAND],
    )


def _end(process: AsyncProcess) -> str:
    code = "" if process.exit_code is None else f"exit code {process.exit_code}"
    return " ".join(part for part in (code, process.reason) if part)


def _part(page: LogPage) -> Log:
    return Log("".join(entry.data for entry in page.entries), page, page.dropped)  # of whole writes, which may be long


def _text(page: LogPage) -> str:
    return cut(_part(page).text, "process_logs", LOG_BYTES)
