"""Finds a snapshot by its id, by the beginning of its id, or by its name."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import at_once
from buntime_cli.commands.showing import since

if TYPE_CHECKING:
    from buntime_sdk import Buntime, Snapshot

WHOLE_ID = re.compile(r"snp_[a-z0-9]{18}")
BEGINNING = re.compile(r"snp_[a-z0-9]{4,17}")


def find_snapshot(client: "Buntime", text: str, session_id: str | None = None) -> str:
    """Returns the id. A complete one needs no request. Raises CommandError if no snapshot matches, or several.

    `session_id`: prefer a snapshot of this session.
    """
    if WHOLE_ID.fullmatch(text):
        return text
    found = list(_meant(client, text))
    found = [one for one in found if one.session_id == session_id] or found
    if not found:
        raise CommandError(
            f"There is no snapshot {text}. List snapshots with: buntime snapshots list", "snapshot_not_found"
        )
    if len(found) > 1:
        raise CommandError(f"{text} could be {' or '.join(one.snapshot_id for one in found)}. Write the id.")
    return found[0].snapshot_id


def _meant(client: "Buntime", text: str) -> Iterator["Snapshot"]:
    if BEGINNING.fullmatch(text):
        return (one for one in client.snapshots.list(page_size=100) if one.snapshot_id.startswith(text))
    return iter(client.snapshots.list(name=text, page_size=100))


def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids for the shell; none if the server does not answer at once. Names may have characters that shells evaluate."""
    now = datetime.now(UTC)
    with at_once(context) as client:
        if client is not None:
            newest, _ = client.snapshots.list(page_size=100).page()
            return [(one.snapshot_id, f"taken {since(one.created_at, now)}") for one in newest]
    return []


HELP = "The snapshot's id, the beginning of its id, or its name."
SnapshotName = Annotated[str, typer.Argument(metavar="SNAPSHOT", help=HELP, autocompletion=complete)]
SnapshotNames = Annotated[
    list[str], typer.Argument(metavar="SNAPSHOT…", help="Ids, beginnings of ids, or names.", autocompletion=complete)
]
FromSnapshot = Annotated[
    str | None,
    typer.Option(metavar="SNAPSHOT", help="Start with the files of this snapshot.", autocompletion=complete),
]
