"""`buntime fork`: sessions with the files of another one."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import one_line
from buntime_cli.commands.naming import SessionName, find
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
    Lifetime,
    Memory,
    Metadata,
    NewName,
    OnWake,
    Ports,
    Services,
    SessionEnv,
    SessionTimeout,
    Visibility,
)
from buntime_cli.commands.sessions import given, limits_of, own_settings, policy_of, session_told, show_created
from buntime_cli.commands.settings import merged_network, merged_policy, merged_preview
from buntime_cli.commands.showing import print_json, until
from buntime_cli.commands.values import read_services

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError, Session

forks = typer.Typer()


@forks.command("fork")
def fork_command(
    context: typer.Context,
    session: SessionName,
    count: Annotated[int, typer.Option(metavar="NUMBER", help="How many sessions to make.")] = 1,
    name: NewName = None,
    ttl: Lifetime = None,
    metadata: Metadata = None,
    env: SessionEnv = None,
    memory: Memory = None,
    cpu: Cpu = None,
    timeout: SessionTimeout = None,
    disk: Disk = None,
    port: Ports = None,
    visibility: Visibility = None,
    egress: Egress = None,
    allow: Allow = None,
    deny: Deny = None,
    on_wake: OnWake = None,
    idle_after: IdleAfter = None,
    deep_sleep_after: DeepSleepAfter = None,
    awake_while: AwakeWhile = None,
    checkpoint_every: CheckpointEvery = None,
    services: Services = None,
    as_json: AsJson = False,
) -> None:
    """Create sessions with the files of another one.

    Prints their ids. What you leave out is as in the other session, except the lifetime, labels and name. Processes are
    not copied. The other session is not woken.

    Example: buntime fork demo --count 3 --ttl 1h
    """
    if name is not None and count != 1:
        raise typer.BadParameter("--name is for one session. Leave out --count, or use --metadata.")
    policy = policy_of(idle_after, deep_sleep_after, checkpoint_every, awake_while)
    options = own_settings(name, ttl, metadata, env, limits_of(memory, cpu, timeout, disk), on_wake, None)
    with connected(context, as_json) as client:
        source = find(client, session).refresh()
        options |= given(
            sleep_policy=merged_policy(source, policy),
            preview=merged_preview(source, visibility, port),
            network=merged_network(source, given(egress=egress, allow=allow, deny=deny)),
            services=read_services(services),
        )
        if count == 1:
            show_created(source.fork(**options), as_json)
        else:
            _show(source.fork_many(count, **options), as_json)


def _show(made: "list[Session | BuntimeError]", as_json: bool) -> None:
    """Prints all entries. Ends with status 1 if a session could not be made."""
    from buntime_sdk import BuntimeError

    failures = [one for one in made if isinstance(one, BuntimeError)]
    sessions = [one for one in made if not isinstance(one, BuntimeError)]
    if as_json:
        print_json({"sessions": [_told(one) for one in made]})
    else:
        for session in sessions:
            print(session.id, flush=True)
        if sessions:
            ends = sessions[0].expires_at
            print("They never end." if ends is None else f"They end {until(ends, datetime.now(UTC))}.", file=sys.stderr)
    for reason in dict.fromkeys(failure.message for failure in failures):
        print(f"buntime: {len(failures)} of {len(made)} could not be made: {one_line(reason)}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def _told(made: "Session | BuntimeError") -> dict[str, object]:
    from buntime_sdk import BuntimeError

    if not isinstance(made, BuntimeError):
        return {"session": session_told(made)}
    told = {"code": made.code, "message": made.message, "retryable": made.retryable, "details": made.details}
    return {"error": told}
