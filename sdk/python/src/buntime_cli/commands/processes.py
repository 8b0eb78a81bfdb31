"""`buntime start`, `ps`, `logs`, `stop`: programs in the background."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.dashes import AFTER_DASHES, CommandAfterDashes
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson, WorkingDir
from buntime_cli.commands.running import command_line
from buntime_cli.commands.showing import plain, print_json, print_table, size, told
from buntime_cli.commands.showing import since as ago
from buntime_cli.commands.values import moment, pairs
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import LogEntry, Process, Session

processes = typer.Typer()

READY_SECONDS = "30"
ProcessName = Annotated[str, typer.Argument(metavar="PROCESS", help="The process id or name.")]


@processes.command("start", cls=CommandAfterDashes)
def start_command(
    context: typer.Context,
    session: SessionName,
    line: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND | -- COMMAND…", help="A line for bash, or a program.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name for the process.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For this process.")
    ] = None,
    working_dir: WorkingDir = "/workspace",
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Kill the process after this time. Default: never.")
    ] = None,
    wait_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Wait until the process listens on this port.")
    ] = None,
    wait_output: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Wait for a line of output that matches.")
    ] = None,
    wait: Annotated[str, typer.Option(metavar="TIME", help="How long to wait, at most 300 s.")] = READY_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Start a command in the background and print its process id.

    With --wait-port or --wait-output, the exit status is 1 if the process is not ready: either it has ended, or the
    wait is over and the process continues.

    Example: buntime start demo --name web --wait-port 8080 -- bun server.ts
    """
    command = command_of(context, line)
    variables, limit, patience = pairs(env) or None, seconds(timeout) if timeout else None, seconds(wait)
    with connected(context, as_json) as client:
        process = find(client, session).processes.start(
            command,
            name=name,
            env=variables,
            working_dir=working_dir,
            timeout=limit,
            wait_for_port=wait_port,
            wait_for_output=wait_output,
            wait_timeout=patience if wait_port or wait_output else None,
        )
        _show_started(process, session, wait_port, as_json)


def command_of(context: typer.Context, line: str | None) -> str:
    """The command of COMMAND, or of what stands after two dashes. Raises BadParameter."""
    words: list[str] | None = context.meta.get(AFTER_DASHES)
    if words:
        if line is None:
            return command_line(words)
    elif words is None and line is not None:
        return line
    raise typer.BadParameter("Write one of: COMMAND, or -- COMMAND.")


def _show_started(process: "Process", session: str, port: int | None, as_json: bool) -> None:
    """Raises CommandError if the command waited for the process and it is not ready."""
    if as_json:
        ready = {} if process.ready is None else {"ready": process.ready}
        print_json(_told(process) | ready | ({"portWasInUse": True} if process.port_was_in_use else {}))
    else:
        print(process.id, flush=True)
    if process.ready is False:
        why = f" Port {port} was already in use before it started." if process.port_was_in_use else ""
        see = f"buntime logs {session} {process.id}"
        raise CommandError(f"The process is not ready: {_state_of(process)}.{why} See: {see}", "not_ready")


@processes.command("ps")
def list_command(context: typer.Context, session: SessionName, as_json: AsJson = False) -> None:
    """List the processes of a session, including ended ones.

    Example: buntime ps demo
    """
    with connected(context, as_json) as client:
        found = list(find(client, session).processes.list())
    if as_json:
        print_json([_told(process) for process in found])
        return
    now = datetime.now(UTC)
    rows = [
        (process.id, process.name or "", _state_of(process), ago(process.started_at, now), process.command)
        for process in found
    ]
    print_table(("PROCESS", "NAME", "STATE", "STARTED", "COMMAND"), rows)


@processes.command("logs")
def logs_command(
    context: typer.Context,
    session: SessionName,
    process: Annotated[
        str | None, typer.Argument(metavar="PROCESS", help="The process id or name. Default: the newest process.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the process ends.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only output since then: 10m, 2026-01-19T10:30:00Z.")
    ] = None,
    times: Annotated[bool, typer.Option("--times", "-t", help="Show when each piece was written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the output of a process.

    The process's stdout goes to stdout and its stderr to stderr. A broken connection is restored without losing output.
    With --json, prints one object per line: stream, data, time. --since compares with the server's clock.

    Example: buntime logs demo web --follow --tail 20
    """
    after = None if since is None else moment(since, datetime.now(UTC))
    with connected(context, as_json) as client:
        found = _find_process(find(client, session), process)
        for entry in _chosen(found, follow, after, tail):
            if as_json:
                print_json({"stream": entry.stream, "data": entry.data, "time": entry.time})
                continue
            target = sys.stderr if entry.stream == "stderr" else sys.stdout
            target.write(f"{entry.time:%Y-%m-%dT%H:%M:%SZ} {entry.data}" if times else entry.data)
            target.flush()


@processes.command("stop")
def stop_command(
    context: typer.Context,
    session: SessionName,
    process: ProcessName,
    signal: Annotated[str, typer.Option(metavar="SIGNAL", help="For example SIGINT or SIGKILL.")] = "SIGTERM",
    as_json: AsJson = False,
) -> None:
    """Send a signal to a process and everything that it started.

    Example: buntime stop demo web --signal SIGINT
    """
    with connected(context, as_json) as client:
        found = _find_process(find(client, session), process)
        found.signal(signal)
        if as_json:
            print_json(_told(found))
        else:
            print(found.id)


def _find_process(session: "Session", name: str | None) -> "Process":
    """The newest process with that name. Raises CommandError if there is none."""
    if name is not None and name.startswith("proc_"):
        return session.processes.get(name)
    for process in session.processes.list():
        if name is None or process.name == name:
            return process
    missing, remedy = (
        ("", "Start one with: buntime start")
        if name is None
        else (f" {plain(name)}", "List processes with: buntime ps")
    )
    raise CommandError(f"{session.id} has no process{missing}. {remedy} {session.id}", "process_not_found")


def _chosen(process: "Process", follow: bool, since: datetime | None, tail: int | None) -> Iterator["LogEntry"]:
    """The output since a time, at most its last lines, and with `follow` everything after it."""
    if since is None and tail is None:
        yield from _entries(process, follow)
        return
    page, kept = process.logs(), []
    end = page.end
    while True:
        kept += [entry for entry in page.entries if since is None or entry.time >= since]
        if page.cursor >= end or not (page.entries or page.dropped):
            break
        page = process.logs(cursor=page.cursor)
    yield from kept if tail is None else last_lines(kept, tail)
    if follow:
        yield from _followed(process, page.cursor)


def last_lines(entries: Sequence["LogEntry"], count: int) -> Sequence["LogEntry"]:
    """The last lines of all pieces together. A piece may have several lines, or a part of one."""
    kept: list[LogEntry] = []
    for entry in reversed(entries):
        end = len(entry.data) - (not kept and entry.data.endswith("\n"))  # the last line's own end
        while count and (end := entry.data.rfind("\n", 0, end)) >= 0:
            count -= 1
        if not count:
            kept.append(replace(entry, data=entry.data[end + 1 :]))
            break
        kept.append(entry)
    return [entry for entry in reversed(kept) if entry.data]


def _entries(process: "Process", follow: bool) -> Iterator["LogEntry"]:
    """The output kept so far, and with `follow` everything after it. Reports dropped output on stderr."""
    if follow:
        yield from _followed(process, 0)
        return
    page = process.logs()
    end = page.end  # does not wait for output written during the read
    while True:
        if page.dropped:
            _say_dropped(page.dropped)
        yield from page.entries
        if page.cursor >= end or not (page.entries or page.dropped):
            return
        page = process.logs(cursor=page.cursor)


def _followed(process: "Process", cursor: int) -> Iterator["LogEntry"]:
    from buntime_sdk import LogEntry, LogsDropped

    for event in process.follow(cursor=cursor):
        if isinstance(event, LogEntry):
            yield event
        elif isinstance(event, LogsDropped):
            _say_dropped(event.bytes)


def _say_dropped(count: int) -> None:
    print(f"buntime: {size(count)} of output are no longer kept.", file=sys.stderr)


def _told(process: "Process") -> dict[str, object]:
    shown = told(process, "processId", "pid", "name", "command", "status", "exit_code", "reason")
    return shown | told(process, "processId", "started_at", "ended_at")


def _state_of(process: "Process") -> str:
    return process.status if process.status == "running" else _end_of(process)


def _end_of(process: "Process") -> str:
    code = "" if process.exit_code is None else f" {process.exit_code}"
    reason = f" ({process.reason})" if process.reason else ""
    return f"{process.status}{code}{reason}"
