"""`buntime update`, `extend`, `inspect`: the settings of a session that exists."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import (
    Allow,
    AsJson,
    AwakeWhile,
    CheckpointEvery,
    DeepSleepAfter,
    Deny,
    Egress,
    IdleAfter,
    OnWake,
    Ports,
    Services,
    SessionEnv,
    Variables,
    Visibility,
)
from buntime_cli.commands.sessions import ending, given, policy_of, session_told
from buntime_cli.commands.showing import live_processes, plain, print_json, since, span, until
from buntime_cli.commands.values import pairs, read_services
from buntime_cli.time_spans import seconds_or_never

if TYPE_CHECKING:
    from buntime_sdk import Session

settings = typer.Typer()


class Setting(StrEnum):
    NAME = "name"
    """What `--default` restores."""

    METADATA = "metadata"
    PREVIEW = "preview"
    NETWORK = "network"
    ENV = "env"
    ON_WAKE = "on-wake"
    SLEEP_POLICY = "sleep-policy"
    SERVICES = "services"


FROM_NOW = "Lifetime from now: 90, 30m, 24h, 7d or never."
RESTORED = f"Restore this default: {', '.join(Setting)}. Repeatable."


@settings.command("update")
def update_command(
    context: typer.Context,
    session: SessionName,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help=FROM_NOW)] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name for the session.")] = None,
    metadata: Annotated[Variables, typer.Option(metavar="NAME=VALUE", help="A label to add or change.")] = None,
    unset: Annotated[Variables, typer.Option(metavar="NAME", help="A label to remove.")] = None,
    env: SessionEnv = None,
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
    default: Annotated[list[Setting] | None, typer.Option(metavar="SETTING", help=RESTORED)] = None,
    as_json: AsJson = False,
) -> None:
    """Change the settings of a session, without waking it.

    What you leave out stays as it is. --env replaces all variables, and --port, --allow and --deny replace their lists.
    Memory, cores, disk and timeout cannot change. For others, create a new session (buntime create --memory 2g), and
    copy the files with buntime cp.

    Example: buntime update demo --ttl 2h --private --metadata team=web
    """
    labels = pairs(metadata)
    policy = policy_of(idle_after, deep_sleep_after, checkpoint_every, awake_while)
    declared = read_services(services)
    asked = (ttl, name, labels or None, unset, env, port, visibility, egress, allow, deny, on_wake, policy, default)
    if not any(one is not None for one in (*asked, declared)):
        raise typer.BadParameter("Name a setting to change, such as --ttl 2h.")
    lifetime, variables = seconds_or_never(ttl) if ttl else None, pairs(env) or None
    with connected(context, as_json) as client:
        found = find(client, session).refresh()
        changes = given(
            name=name,
            ttl=lifetime,
            metadata=_merged(found.metadata, labels, unset or ()),
            env=variables,
            preview=merged_preview(found, visibility, port),
            network=merged_network(found, given(egress=egress, allow=allow, deny=deny)),
            on_wake=on_wake,
            sleep_policy=merged_policy(found, policy),
            services=declared,
        )
        for label in sorted({*(unset or ())} - {*found.metadata}):
            print(f"buntime: {found.id} has no label {plain(label)}.", file=sys.stderr)
        before = dict(_settings(found))
        found.update(**changes, **_defaults(default or [], changes))
        if as_json:
            print_json(session_told(found))
        else:
            _show_changes(found, before, {"ends": ttl, "variables": env, "open ports": port, "services": services})


@settings.command("extend")
def extend_command(
    context: typer.Context,
    session: SessionName,
    ttl: Annotated[str, typer.Argument(metavar="TIME", help=FROM_NOW)],
    as_json: AsJson = False,
) -> None:
    """Make a session expire later, or sooner.

    Example: buntime extend demo 2h
    """
    lifetime = seconds_or_never(ttl)
    with connected(context, as_json) as client:
        _show(find(client, session).extend(lifetime), as_json)


@settings.command("inspect")
def inspect_command(context: typer.Context, session: SessionName, as_json: AsJson = False) -> None:
    """Show all that the server knows of a session. Does not wake it.

    Example: buntime inspect demo --json
    """
    with connected(context, as_json) as client:
        found = find(client, session).refresh()
    if as_json:
        print_json(session_told(found))
        return
    rows = _rows(found, datetime.now(UTC))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:{width}}  {plain(value)}".rstrip())


def _show(session: "Session", as_json: bool) -> None:
    if as_json:
        print_json(session_told(session))
    else:
        print(f"{session.id} {ending(session)}.")


def _show_changes(session: "Session", before: Mapping[str, str], asked: Mapping[str, object]) -> None:
    """`asked`: options that may change what the settings do not show, such as the values of variables."""
    after = dict((*_settings(session), _end(session, datetime.now(UTC))))
    before = {"ends": after["ends"], **before}
    labels = [one for one in {**before, **after} if before.get(one) != after.get(one) or asked.get(one)]
    print(f"{session.id} {'has changed:' if labels else 'had these settings before.'}")
    for label in labels:
        old, new = before.get(label, "–"), after.get(label, "–")
        print(plain(f"  {label}: {new}" if old == new else f"  {label}: {old} → {new}"))


def _defaults(names: list[Setting], changes: dict[str, Any]) -> dict[str, None]:
    """None restores a default. Raises CommandError for a setting that another option changes."""
    fields = [name.replace("-", "_") for name in names]
    for field in fields:
        if field in changes:
            raise CommandError(f"--default {field.replace('_', '-')} contradicts another option.")
    return dict.fromkeys(fields)


def _merged(old: Any, labels: dict[str, str], removed: Any) -> dict[str, object] | None:
    """The API replaces metadata as a whole. None if nothing changes."""
    if not labels and not removed:
        return None
    return {name: value for name, value in {**old, **labels}.items() if name not in removed}


def merged_preview(session: "Session", private: bool | None, ports: list[int] | None) -> dict[str, Any] | None:
    """The preview settings with these changes, since the API replaces them as a whole. None if nothing changes."""
    if private is None and ports is None:
        return None
    now = session.preview
    visibility = now.visibility if private is None else "private" if private else "public"
    return {"visibility": visibility, "ports": list(now.ports) if ports is None else ports}


def merged_network(session: "Session", changes: dict[str, Any]) -> dict[str, Any] | None:
    """The same for the network settings."""
    now = session.network
    return {"egress": now.egress, "allow": list(now.allow), "deny": list(now.deny)} | changes if changes else None


def merged_policy(session: "Session", changes: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same for the sleep policy."""
    now = session.sleep_policy
    waits = {"idle_after": now.idle_after, "deep_sleep_after": now.deep_sleep_after}
    others = {"checkpoint_every": now.checkpoint_every, "awake_while": now.awake_while}
    return waits | others | changes if changes else None


def _rows(session: "Session", now: datetime) -> list[tuple[str, str]]:
    limits = session.resource_limits
    return [
        ("session", session.id),
        ("name", session.name or "–"),
        *_labels(session),
        ("state", session.state),
        ("created", f"{since(session.created_at, now)} ({session.created_at:%Y-%m-%dT%H:%M:%SZ})"),
        ("last active", since(session.last_active, now)),
        _end(session, now),
        ("processes", str(live_processes(session))),
        ("files", str(session.files_count)),
        ("memory", f"{limits.memory} MB"),
        ("cpu", f"{limits.cpu:.15g} cores"),
        ("disk", f"{limits.disk} MB"),
        ("timeout of runs", f"{limits.timeout} s"),
        ("preview", session.preview_url()),
        *_access(session),
        ("last archived", _archived(session, now)),
    ]


def _after(seconds: int | str) -> str:
    return str(seconds) if seconds == "never" else f"after {span(float(seconds))}"


def _sleep(session: "Session") -> list[tuple[str, str]]:
    policy = session.sleep_policy
    every = policy.checkpoint_every
    return [
        ("idle", _after(policy.idle_after)),
        ("deep sleep", _after(policy.deep_sleep_after)),
        ("awake while", policy.awake_while),
        ("checkpoints", every if every == "never" else f"every {every} s"),
    ]


def _archived(session: "Session", now: datetime) -> str:
    at = session.checkpointed_at
    return "never" if at is None else f"{since(at, now)} ({at:%Y-%m-%dT%H:%M:%SZ})"


def _settings(session: "Session") -> list[tuple[str, str]]:
    """What `update` can change, without the end, which comes nearer by itself."""
    return [("name", session.name or "–"), *_labels(session), *_access(session)]


def _labels(session: "Session") -> list[tuple[str, str]]:
    return [(f"metadata.{name}", str(value)) for name, value in session.metadata.items()]


def _end(session: "Session", now: datetime) -> tuple[str, str]:
    ends = session.expires_at
    return "ends", "never" if ends is None else f"{until(ends, now)} ({ends:%Y-%m-%dT%H:%M:%SZ})"


def _access(session: "Session") -> list[tuple[str, str]]:
    preview, network = session.preview, session.network
    return [
        ("open ports", ", ".join(map(str, preview.ports)) if preview.visibility == "public" else "none (private)"),
        ("network", network.egress),
        ("allowed", ", ".join(network.allow) or "–"),
        ("denied", ", ".join(network.deny) or "–"),
        ("on wake", session.on_wake or "–"),
        *_sleep(session),
        ("services", ", ".join(one.name for one in session.declared_services) or "–"),
        ("variables", ", ".join(session.env_names) or "–"),
        ("image", session.image),
        ("from snapshot", session.snapshot_id or "–"),
    ]
