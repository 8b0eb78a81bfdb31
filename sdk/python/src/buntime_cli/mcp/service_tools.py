"""Tools for services: programs that outlive sleep and crashes."""

from typing import Annotated, Any, Literal

from buntime_sdk import InvalidRequest, Service
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import Services, ServiceShown, answer
from buntime_cli.mcp.run_tools import Session, WorkingDir
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

VARIABLES = "The service {} has variables, which cannot be read back. Remove it first, and set it again afterwards."


class ServiceTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def set_service(
        self,
        context: Context[Any, Any],
        name: Annotated[str, Field(description="Its name: a-z, 0-9 and -, at most 63. An existing one is replaced.")],
        command: Annotated[
            str, Field(description="A bash command that stays in the foreground. Empty: remove the service.")
        ],
        port: Annotated[
            int | None, Field(description="The port that it listens on. Also in its variable PORT.", ge=1024, le=65535)
        ] = None,
        restart: Annotated[
            Literal["always", "on-failure", "never"], Field(description="When to start it again after it has ended.")
        ] = "always",
        working_dir: WorkingDir = "/workspace",
        env: Annotated[
            dict[str, str] | None, Field(description="Environment variables for it, besides the session's.")
        ] = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, Services]:
        """Declare a program that runs whenever the session is awake: a web server, a database, a worker.

        It starts now, after each deep sleep, and again when it crashes. Use start_process for what ends by itself. Read
        its output with process_logs and the service's name. Returns all services and how they are.
        """
        async with self._tool_context.session(context, session) as opened:
            declared = (await opened.session.refresh()).declared_services
            settings: list[dict[str, Any]] = []
            for one in declared:
                if one.name != name and one.env_names:
                    raise InvalidRequest(VARIABLES.format(one.name), code="invalid_request")
                kept = {"name": one.name, "command": one.command, "port": one.port, "restart": one.restart}
                settings.append({**kept, "working_dir": one.working_dir})
            names = [one.name for one in declared]
            at = names.index(name) if name in names else len(names)
            new = {"name": name, "command": command, "port": port, "restart": restart, "env": env or {}}
            settings[at : at + 1] = [{**new, "working_dir": working_dir or None}] if command else []
            await opened.session.update(services=settings)  # type: ignore[arg-type]
            return _listed(note(opened), await opened.session.services.list())

    @telling_errors
    async def list_services(
        self, context: Context[Any, Any], session: Session = None
    ) -> Annotated[CallToolResult, Services]:
        """List the session's services: states, restarts, last exit codes, ports."""
        async with self._tool_context.session(context, session) as opened:
            return _listed(note(opened), await opened.session.services.list())


def _listed(about: dict[str, str], services: list[Service]) -> CallToolResult:
    shown = [_shown(one) for one in services]
    return answer("\n".join(map(_line, shown)) or "(none)", {**about, "services": shown})


def _shown(service: Service) -> ServiceShown:
    return ServiceShown(
        name=service.name,
        state=service.state,
        port=service.port,
        restarts=service.restarts,
        lastExitCode=None if service.last_exit is None else service.last_exit.exit_code,
        process=service.process_id,
    )


def _line(one: ServiceShown) -> str:
    port = "" if one["port"] is None else f"  port {one['port']}"
    last = "" if one["lastExitCode"] is None else f"  last exit {one['lastExitCode']}"
    return f"{one['name']}  {one['state']}{port}  restarts {one['restarts']}{last}  {one['process'] or ''}"
