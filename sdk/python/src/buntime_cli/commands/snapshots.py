"""`buntime snapshot`, `restore`, `recover` and `snapshots`: a session's files as they were."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.finding_snapshots import SnapshotName, SnapshotNames, find_snapshot
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson, Variables
from buntime_cli.commands.sessions import session_told
from buntime_cli.commands.showing import plain, print_json, print_table, since, size, span, until
from buntime_cli.commands.values import pairs
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import Snapshot

taking = typer.Typer()
kept = typer.Typer(
    help="Snapshots: files of sessions as they were.\n\nExample: buntime snapshots list --session demo",
    no_args_is_help=True,
    rich_markup_mode=None,
)
taking.add_typer(kept, name="snapshots")

STAYS = "–"  # until it is deleted


@taking.command("snapshot")
def snapshot_command(
    context: typer.Context,
    session: SessionName,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name. Several snapshots may have it.")] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="Lifetime: 30m, 24h, 7d. Default: until you delete it.")
    ] = None,
    metadata: Annotated[Variables, typer.Option(metavar="NAME=VALUE", help="A label.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a snapshot of a session's files and print its id. Does not wake the session.

    Processes are not in it. It stays when the session is gone.

    Example: buntime snapshot demo --name before-upgrade
    """
    lifetime, labels = seconds(ttl) if ttl else None, pairs(metadata) or None
    with connected(context, as_json) as client:
        made = find(client, session).snapshot(name=name, ttl=lifetime, metadata=labels)
    if as_json:
        print_json(made)
        return
    print(made.snapshot_id, flush=True)
    print(f"{size(made.size_bytes)}, {_end(made, datetime.now(UTC))}", file=sys.stderr)


@taking.command("restore")
def restore_command(
    context: typer.Context, session: SessionName, snapshot: SnapshotName, as_json: AsJson = False
) -> None:
    """Replace a session's files by those of a snapshot. Its processes end.

    The files before it are kept for 24 hours as the session's snapshot before-restore.

    Examples: buntime restore demo before-upgrade    buntime restore demo before-restore
    """
    with connected(context, as_json) as client:
        found = find(client, session)
        wanted = find_snapshot(client, snapshot, found.id)
        found.restore(wanted)
        if as_json:
            print_json(session_told(found))
        else:
            print(f"{found.id} has the files of {wanted}. Undo: buntime restore {found.id} before-restore")


@taking.command("recover")
def recover_command(context: typer.Context, session: SessionName, as_json: AsJson = False) -> None:
    """Continue a session whose files are lost from its last checkpoint or deep sleep.

    What changed since then is given up for good. Nothing happens if no files are lost.

    Example: buntime recover demo
    """
    with connected(context, as_json) as client:
        found = find(client, session)
        recovered = found.recover()
    at, age = recovered.recovered_from, recovered.age_seconds
    if as_json:
        print_json({"sessionId": found.id, "state": found.state, "recoveredFrom": at, "ageSeconds": age})
    else:
        print(f"{found.id} continues with its files as they were {span(age)} ago. The next command wakes it.")


@kept.command("list")
def list_command(
    context: typer.Context,
    session: Annotated[
        str | None, typer.Option(metavar="SESSION", help="Only snapshots of this session: its id or name.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only snapshots with this name.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only ids.")] = False,
    as_json: AsJson = False,
) -> None:
    """List snapshots, newest first.

    Example: buntime snapshots list --session demo
    """
    with connected(context, as_json) as client:
        session_id = None if session is None else find(client, session).id
        found = list(client.snapshots.list(session_id=session_id, name=name, page_size=100))
    if as_json:
        print_json(found)
    elif quiet:
        for one in found:
            print(one.snapshot_id)
    else:
        now = datetime.now(UTC)
        rows = [
            (
                *(one.snapshot_id, one.session_id, size(one.size_bytes), since(one.created_at, now)),
                *(STAYS if one.expires_at is None else until(one.expires_at, now), one.name or ""),
            )
            for one in found
        ]
        print_table(("SNAPSHOT", "SESSION", "SIZE", "TAKEN", "EXPIRES", "NAME"), rows)


@kept.command("show")
def show_command(context: typer.Context, snapshot: SnapshotName, as_json: AsJson = False) -> None:
    """Show a snapshot.

    Example: buntime snapshots show before-upgrade
    """
    with connected(context, as_json) as client:
        found = client.snapshots.get(find_snapshot(client, snapshot))
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    rows = [
        ("snapshot", found.snapshot_id),
        ("name", found.name or STAYS),
        *((f"metadata.{name}", str(value)) for name, value in found.metadata.items()),
        ("session", found.session_id),
        ("image", found.image),
        ("size", size(found.size_bytes)),
        ("taken", f"{since(found.created_at, now)} ({found.created_at:%Y-%m-%dT%H:%M:%SZ})"),
        ("expires", STAYS if found.expires_at is None else f"{until(found.expires_at, now)}"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:{width}}  {plain(value)}")


@kept.command("delete")
def delete_command(context: typer.Context, snapshots: SnapshotNames, as_json: AsJson = False) -> None:
    """Delete snapshots. Sessions and images that were made of them stay.

    Example: buntime snapshots delete before-upgrade
    """
    with connected(context, as_json) as client:
        wanted = list(dict.fromkeys(find_snapshot(client, one) for one in snapshots))  # all before deleting any
        if len(wanted) > 1:
            for snapshot_id in wanted:
                client.snapshots.get(snapshot_id)
        for snapshot_id in wanted:
            client.snapshots.delete(snapshot_id)
            if not as_json:
                print(snapshot_id, flush=True)
        if as_json:
            print_json({"deleted": wanted})


def _end(snapshot: "Snapshot", now: datetime) -> str:
    return "stays until you delete it" if snapshot.expires_at is None else f"expires {until(snapshot.expires_at, now)}"
