"""The MCP server: its tools, and its two transports."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import ValidationError
from starlette.applications import Starlette

from buntime_cli.mcp.arguments import invalid_arguments, refusing_unknown
from buntime_cli.mcp.file_tools import FileTools
from buntime_cli.mcp.open_conversations import IDLE_SECONDS
from buntime_cli.mcp.process_tools import ProcessTools
from buntime_cli.mcp.run_tools import RunTools
from buntime_cli.mcp.service_tools import ServiceTools
from buntime_cli.mcp.session_tools import SessionTools
from buntime_cli.mcp.snapshot_tools import SnapshotTools
from buntime_cli.mcp.tool_context import Settings, ToolContext

LARGEST_BODY = 16 << 20  # bytes: it may contain a file
ABSENT = ("prompts/list", "prompts/get", "resources/list", "resources/read", "resources/templates/list")
ANY_ADDRESS = ("0.0.0.0", "::")
INSTRUCTIONS = """\
Run code in an isolated Linux session with Bun, Node's API, bash, Python, git and the internet. Files are in /workspace
and persist between calls. The first call creates the session. It sleeps when idle and wakes on its own. Every result
names it as [session ses_…]. If a result says that the session is new although you already used one, the old files are
gone, or your client does not distinguish conversations: then pass the session id in every call.

Use execute_code for TypeScript, run_command for the shell, run_in_context to keep variables, and start_process for
servers, then preview_url for the user, and set_service for a server that must survive sleep and crashes. Before a risky
change, use snapshot_session. Long output is cut; the result names a file with all of it.
"""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool, its title, and its hints for clients.

    `reads`: it changes nothing. `destroys`: it may lose data. `repeatable`: calling it twice has the effect of one
    call. `open_world`: it reaches beyond the session.
    """

    tool: Callable[..., Awaitable[CallToolResult]]
    title: str
    reads: bool = False
    destroys: bool = False
    repeatable: bool = False
    open_world: bool = False

    @property
    def annotations(self) -> ToolAnnotations:
        return ToolAnnotations(
            title=self.title,
            read_only_hint=self.reads,
            destructive_hint=self.destroys,
            idempotent_hint=self.repeatable or self.reads,
            open_world_hint=self.open_world,
        )

    def as_tool(self) -> Tool:
        description = inspect.cleandoc(self.tool.__doc__ or "")  # before Python 3.13, it has the source's indentation
        return refusing_unknown(
            Tool.from_function(self.tool, title=self.title, description=description, annotations=self.annotations)
        )


def offered(tool_context: ToolContext) -> Sequence[Offered]:
    """All tools."""
    runs, files = RunTools(tool_context), FileTools(tool_context)
    processes, sessions = ProcessTools(tool_context), SessionTools(tool_context)
    snapshots, services = SnapshotTools(tool_context), ServiceTools(tool_context)
    return (
        Offered(runs.execute_code, "Run TypeScript", destroys=True, open_world=True),
        Offered(runs.run_command, "Run a shell command", destroys=True, open_world=True),
        Offered(runs.run_in_context, "Run TypeScript and keep variables", destroys=True, open_world=True),
        Offered(files.read_file, "Read a file", reads=True),
        Offered(files.write_file, "Write a file", destroys=True),
        Offered(files.edit_file, "Change a file", destroys=True),
        Offered(files.list_files, "List files", reads=True),
        Offered(files.search_files, "Search files", reads=True),
        Offered(processes.start_process, "Start a server or another process", destroys=True, open_world=True),
        Offered(processes.process_logs, "Read a process' output", reads=True),
        Offered(processes.list_processes, "List processes", reads=True),
        Offered(processes.send_input, "Write to a process", destroys=True, open_world=True),
        Offered(processes.stop_process, "Stop a process", destroys=True, repeatable=True),
        Offered(processes.preview_url, "Get a preview's URL", repeatable=True, open_world=True),
        Offered(services.set_service, "Declare a service", destroys=True, repeatable=True, open_world=True),
        Offered(services.list_services, "List services", reads=True),
        Offered(snapshots.snapshot_session, "Keep a session's files"),
        Offered(snapshots.list_snapshots, "List snapshots", reads=True),
        Offered(snapshots.restore_session, "Bring a session's files back", destroys=True),
        Offered(snapshots.fork_session, "Copy a session"),
        Offered(sessions.new_session, "Begin a new session"),
        Offered(sessions.list_sessions, "List sessions", reads=True),
        Offered(sessions.sleep_session, "Put a session to sleep", destroys=True, repeatable=True),
        Offered(sessions.delete_session, "Delete a session", destroys=True, repeatable=True),
    )


class ToolServer(MCPServer):
    """Offers only tools. Answers wrong arguments in the words of the API's errors."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for method in ABSENT:  # the library announces what has a handler, and has no setting for it
            self._lowlevel_server._request_handlers.pop(method, None)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as failed:
            if not isinstance(failed.__cause__, ValidationError):
                raise
            (tool,) = (tool for tool in await self.list_tools() if tool.name == name)
            return invalid_arguments(name, tool.input_schema["properties"], failed.__cause__)


def build(settings: Settings) -> MCPServer:
    return ToolServer(
        name="buntime",
        title="buntime",
        description="Isolated sessions for running code.",
        instructions=INSTRUCTIONS,
        version=version("buntime-sdk"),
        log_level="WARNING",
        tools=[one.as_tool() for one in offered(ToolContext(settings))],
    )


def http_app(server: MCPServer, host: str, allowed_hosts: Sequence[str]) -> Starlette:
    """Serves `/mcp`. Rejects requests for hosts other than these and loopback, because a web page could send them."""
    named = [host, *allowed_hosts] if host not in ANY_ADDRESS else allowed_hosts
    names = [one for name in named for one in ((name,) if ":" in name else (name, f"{name}:*"))]  # on any port
    hosts = ["127.0.0.1:*", "localhost:*", "[::1]:*", *names]
    origins = [f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
    return server.streamable_http_app(
        host=host, transport_security=security, max_request_body_size=LARGEST_BODY, session_idle_timeout=IDLE_SECONDS
    )
