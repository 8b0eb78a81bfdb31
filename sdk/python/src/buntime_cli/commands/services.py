"""`buntime services`: the programs that a session declares."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.dashes import CommandAfterDashes
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson, WorkingDir
from buntime_cli.commands.processes import command_of
from buntime_cli.commands.showing import plain, print_json, print_table, since
from buntime_cli.commands.values import pairs

if TYPE_CHECKING:
    from buntime_sdk import Service, Session

services = typer.Typer(
    help="Programs that run whenever a session is awake.\n\nThey start with the session and after each deep sleep, and "
    "again when they end. Show their output with buntime logs SESSION NAME.\n\n"
    "Example: buntime services set demo web --port 8080 -- bun server.ts",
    no_args_is_help=True,
    rich_markup_mode=None,
)
service_commands = typer.Typer()
service_commands.add_typer(services, name="services")

ServiceName = Annotated[str, typer.Argument(metavar="NAME", help="The service's name.")]
RULES = ("always", "on-failure", "never")


@services.command("ls")
def list_command(context: typer.Context, session: SessionName, as_json: AsJson = False) -> None:
    """List services: state, pid, restarts, last exit, port, process. Wakes the session.

    Example: buntime services ls demo
    """
    with connected(context, as_json) as client:
        found = find(client, session).services.list()
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    rows = [_row(service, now) for service in found]
    print_table(("NAME", "STATE", "PID", "RESTARTS", "LAST EXIT", "STARTED", "PORT", "PROCESS"), rows)


@services.command("set", cls=CommandAfterDashes)
def set_command(
    context: typer.Context,
    session: SessionName,
    name: ServiceName,
    line: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND | -- COMMAND…", help="A line for bash, or a program.", show_default=False),
    ] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="The port on which it listens.")] = None,
    restart: Annotated[
        str, typer.Option(metavar="RULE", help="When to start it again: always, on-failure or never.")
    ] = "always",
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For this service.")
    ] = None,
    working_dir: WorkingDir = "/workspace",
    as_json: AsJson = False,
) -> None:
    """Declare a service, or replace the one of this name.

    If the session is awake, it starts, or restarts when it has changed. It must stay in the foreground.

    Example: buntime services set demo web --port 8080 -- bun server.ts
    """
    if restart not in RULES:
        raise typer.BadParameter(f"There is no rule {restart!r}. Rules: {', '.join(RULES)}.", param_hint="--restart")
    new: dict[str, Any] = {
        "name": name,
        "command": command_of(context, line),
        "port": port,
        "working_dir": working_dir,
        "env": pairs(env) or {},
        "restart": restart,
    }
    with connected(context, as_json) as client:
        found = find(client, session).refresh()
        names = [one.name for one in found.declared_services]
        kept = _others(found, name)
        at = names.index(name) if name in names else len(kept)
        found.update(services=[*kept[:at], new, *kept[at:]])  # type: ignore[list-item]
        _show_declared(found, as_json)


@services.command("rm")
def remove_command(context: typer.Context, session: SessionName, name: ServiceName, as_json: AsJson = False) -> None:
    """Stop a service and declare it no more.

    Example: buntime services rm demo web
    """
    with connected(context, as_json) as client:
        found = find(client, session).refresh()
        if name not in [one.name for one in found.declared_services]:
            raise CommandError(f"{found.id} has no service {plain(name)}.", "service_not_found")
        found.update(services=_others(found, name))  # type: ignore[arg-type]
        _show_declared(found, as_json)


@services.command("start")
def start_command(context: typer.Context, session: SessionName, name: ServiceName, as_json: AsJson = False) -> None:
    """Start a service that has exited or was stopped.

    Example: buntime services start demo web
    """
    with connected(context, as_json) as client:
        _show(find(client, session).services.start(name), as_json)


@services.command("stop")
def stop_command(context: typer.Context, session: SessionName, name: ServiceName, as_json: AsJson = False) -> None:
    """Stop a service until you start it, or the session wakes from deep sleep.

    Example: buntime services stop demo web
    """
    with connected(context, as_json) as client:
        _show(find(client, session).services.stop(name), as_json)


@services.command("restart")
def restart_command(context: typer.Context, session: SessionName, name: ServiceName, as_json: AsJson = False) -> None:
    """Stop a service and start it again.

    Example: buntime services restart demo web
    """
    with connected(context, as_json) as client:
        _show(find(client, session).services.restart(name), as_json)


def _others(session: "Session", name: str) -> list[dict[str, Any]]:
    """The other services that the session declares, as the SDK takes them. Raises CommandError where that is unknown:
    the API replaces them as a whole, and never returns the values of variables."""
    others = [one for one in session.declared_services if one.name != name]
    for one in others:
        if one.env_names:
            raise CommandError(
                f"The service {one.name} has variables, whose values the server does not return. Declare all services "
                "at once: buntime update SESSION --services FILE",
                "variables_unknown",
            )
    return [
        {
            "name": one.name,
            "command": one.command,
            "port": one.port,
            "working_dir": one.working_dir,
            "restart": one.restart,
        }
        for one in others
    ]


def _show_declared(session: "Session", as_json: bool) -> None:
    if as_json:
        print_json(session.declared_services)
    else:
        print(f"{session.id} declares: {', '.join(one.name for one in session.declared_services) or 'no services'}.")


def _show(service: "Service", as_json: bool) -> None:
    if as_json:
        print_json(service)
    else:
        print(f"{service.name} is {service.state}.")


def _row(service: "Service", now: datetime) -> tuple[str, ...]:
    last = service.last_exit
    return (
        service.name,
        service.state,
        "" if service.pid is None else str(service.pid),
        str(service.restarts),
        "" if last is None else f"{last.exit_code}, {since(last.ended_at, now)}",
        "" if service.started_at is None else since(service.started_at, now),
        "" if service.port is None else str(service.port),
        service.process_id or "",
    )
