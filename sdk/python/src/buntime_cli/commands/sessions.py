"""`buntime create`, `ls`, `sleep`, `wake`, `rm`: sessions from start to end."""

import sys
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.finding_snapshots import FromSnapshot, find_snapshot
from buntime_cli.commands.naming import SessionName, SessionNames, find
from buntime_cli.commands.options import (
    Allow,
    AsJson,
    AwakeWhile,
    CheckpointEvery,
    Cpu,
    DeepSleepAfter,
    Deny,
    Disk,
    Egress,
    IdleAfter,
    Image,
    Lifetime,
    Memory,
    Metadata,
    NewName,
    OnWake,
    Ports,
    Services,
    SessionEnv,
    SessionTimeout,
    Variables,
)
from buntime_cli.commands.showing import live_processes, print_json, print_table, since, told, until
from buntime_cli.commands.values import megabytes, pairs, read_services
from buntime_cli.time_spans import seconds, seconds_or_never

if TYPE_CHECKING:
    from buntime_sdk import Session

sessions = typer.Typer()

ASLEEP = {"idle": "suspended", "deep-sleep": "in deep sleep"}
SHOWN = (
    *("name", "created_at", "expires_at", "last_active", "state", "files_count", "active_processes", "metadata"),
    *("resource_limits", "preview", "network", "on_wake", "sleep_policy", "checkpointed_at", "env_names", "image"),
    *("snapshot_id", "declared_services"),
)


@sessions.command("create")
def create_command(
    context: typer.Context,
    name: NewName = None,
    ttl: Lifetime = None,
    metadata: Metadata = None,
    env: SessionEnv = None,
    memory: Memory = None,
    cpu: Cpu = None,
    timeout: SessionTimeout = None,
    disk: Disk = None,
    port: Ports = None,
    private: Annotated[bool, typer.Option("--private", help="Require a token for previews.")] = False,
    egress: Egress = None,
    allow: Allow = None,
    deny: Deny = None,
    on_wake: OnWake = None,
    idle_after: IdleAfter = None,
    deep_sleep_after: DeepSleepAfter = None,
    awake_while: AwakeWhile = None,
    checkpoint_every: CheckpointEvery = None,
    services: Services = None,
    image: Image = None,
    snapshot: FromSnapshot = None,
    as_json: AsJson = False,
) -> None:
    """Create a session and print its id.

    What you leave out has the default of your plan. Limits cannot change later.

    Examples: buntime create --name demo --ttl 2h    buntime create --awake-while processes --memory 2g
    """
    if image is not None and snapshot is not None:
        raise typer.BadParameter("A snapshot has its image. Leave out --image or --snapshot.")
    policy = policy_of(idle_after, deep_sleep_after, checkpoint_every, awake_while)
    options = {
        **own_settings(name, ttl, metadata, env, limits_of(memory, cpu, timeout, disk), on_wake, policy),
        **given(
            preview=given(visibility="private" if private else None, ports=port) or None,
            network=given(egress=egress, allow=allow, deny=deny) or None,
            image=image,
            services=read_services(services),
        ),
    }
    with connected(context, as_json) as client:
        if snapshot is not None:
            options["snapshot_id"] = find_snapshot(client, snapshot)
        show_created(client.sessions.create(**options), as_json)


def own_settings(
    name: str | None,
    ttl: str | None,
    metadata: Variables,
    env: Variables,
    limits: dict[str, Any],
    on_wake: str | None,
    sleep_policy: dict[str, Any] | None,
) -> dict[str, Any]:
    """The SDK's options for what is set of these. Raises BadParameter."""
    return given(
        name=name,
        ttl=seconds_or_never(ttl) if ttl else None,
        metadata=pairs(metadata) or None,
        env=pairs(env) or None,
        resource_limits=limits or None,
        on_wake=on_wake,
        sleep_policy=sleep_policy,
    )


def policy_of(
    idle_after: str | None, deep_sleep_after: str | None, checkpoint_every: str | None, awake_while: str | None
) -> dict[str, Any] | None:
    """The parts of a sleep policy that are set; None if nothing is. Raises BadParameter."""
    spans = {"idle_after": idle_after, "deep_sleep_after": deep_sleep_after, "checkpoint_every": checkpoint_every}
    waits = {name: seconds_or_never(text) for name, text in spans.items() if text is not None}
    return given(**waits, awake_while=awake_while) or None


def limits_of(memory: str | None, cpu: float | None, timeout: str | None, disk: str | None) -> dict[str, Any]:
    """The limits that are not None. Raises BadParameter."""
    return given(
        memory=megabytes(memory, "--memory") if memory is not None else None,
        cpu=cpu,
        timeout=seconds(timeout) if timeout else None,
        disk=megabytes(disk, "--disk") if disk is not None else None,
    )


def show_created(session: "Session", as_json: bool) -> None:
    if as_json:
        print_json(session_told(session))
        return
    print(session.id, flush=True)
    print(f"{session.preview_url()}, {ending(session)}", file=sys.stderr)


def ending(session: "Session") -> str:
    """`ends in 24 h`, or that it never does."""
    return "never ends" if session.expires_at is None else f"ends {until(session.expires_at, datetime.now(UTC))}"


def session_told(session: "Session") -> dict[str, object]:
    shown = told(session, "sessionId", *SHOWN) | {"previewUrl": session.preview_url()}
    if "declaredServices" in shown:
        shown["services"] = shown.pop("declaredServices")  # as in the API
    return shown


def given(**options: object) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


@sessions.command("ls")
def list_command(
    context: typer.Context,
    state: Annotated[
        Literal["active", "idle", "deep-sleep"] | None, typer.Option(help="Only sessions in this state.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only the session of this name.")] = None,
    metadata: Annotated[Variables, typer.Option(metavar="NAME=VALUE", help="Only sessions with this metadata.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only ids.")] = False,
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first.

    Example: buntime ls --state idle --metadata team=web
    """
    wanted = pairs(metadata)
    with connected(context, as_json) as client:
        found = list(client.sessions.list(state=state, name=name, metadata=wanted or None, page_size=100))
    if as_json:
        print_json([session_told(session) for session in found])
    elif quiet:
        for session in found:
            print(session.id)
    else:
        now = datetime.now(UTC)
        rows = [
            (
                *(session.id, session.name or "", session.state),
                *(str(live_processes(session)), str(session.files_count)),
                *(since(session.last_active, now), until(session.expires_at, now)),
            )
            for session in found
        ]
        print_table(("SESSION", "NAME", "STATE", "PROCS", "FILES", "ACTIVE", "ENDS"), rows)


@sessions.command("sleep")
def sleep_command(
    context: typer.Context,
    session: SessionName,
    deep: Annotated[bool, typer.Option("--deep", help="End the processes and keep the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Suspend a session. The next request wakes it.

    Example: buntime sleep demo --deep
    """
    with connected(context, as_json) as client:
        found = find(client, session)
        found.sleep("deep-sleep" if deep else "idle")
        if as_json:
            print_json(session_told(found))
        else:
            print(f"{found.id} is {ASLEEP.get(found.state, found.state)}.")


@sessions.command("wake")
def wake_command(context: typer.Context, session: SessionName, as_json: AsJson = False) -> None:
    """Wake a session before the next request does.

    Example: buntime wake demo
    """
    with connected(context, as_json) as client:
        found = find(client, session)
        woken = found.wake()
        if as_json:
            print_json(session_told(found) | {"wokeFrom": woken.woke_from, "wakeTimeMs": woken.wake_time_ms})
        else:
            print(f"{found.id} was {woken.woke_from} and is awake after {woken.wake_time_ms} ms.")


@sessions.command("rm")
def remove_command(
    context: typer.Context,
    names: SessionNames = None,
    every: Annotated[bool, typer.Option("--all", help="Delete all sessions of the account.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete sessions with everything in them.

    Examples: buntime rm demo    buntime rm --all --yes
    """
    if every == bool(names):
        raise typer.BadParameter(f"Name the sessions, or use --all{', not both' if every else ''}.")
    from buntime_sdk import SessionNotFound

    with connected(context, as_json) as client:
        # find all before deleting any: a mistyped name deletes nothing
        found = list(client.sessions.list(page_size=100)) if every else [find(client, name) for name in names or ()]
        if not every and len(found) > 1:
            found = [session.refresh() for session in found]
        if every and found and not yes:
            counted = f"{len(found)} session{'' if len(found) == 1 else 's'}"
            if not sys.stdin.isatty():
                raise CommandError(f"This would delete {counted}. Confirm with: buntime rm --all --yes")
            typer.confirm(f"Delete {counted}?", abort=True, err=True)
        for session in {session.id: session for session in found}.values():
            with suppress(SessionNotFound) if every else nullcontext():  # a session may just have expired
                session.delete()
            if not as_json:
                print(session.id, flush=True)
        if as_json:
            print_json({"deleted": list({session.id: None for session in found})})
