"""`buntime store move`: from the SQLite file into the database of BUNTIME_STORE. `store move-archive`: the archive."""

import os
from pathlib import Path
from typing import Annotated

import typer

from buntime.admin.printing import AsJson, say
from buntime.admin.refusals import CommandRefused, ServerGroup
from buntime.config import from_environment
from buntime.daemon.only_server import only_server
from buntime.fleet.members import Fenced, Membership
from buntime.stores import store_file
from buntime.stores.belonging import MOVED, require_same
from buntime.stores.opening import opened_database, place_of
from buntime.stores.unusable import StoreUnusable

store = typer.Typer(
    cls=ServerGroup, help="Where the store is.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


def _no_member() -> Membership:
    raise Fenced


@store.callback()
def _group() -> None:
    """Where the store is."""


@store.command("move")
def move_store(as_json: AsJson = False) -> None:
    """Move the store from the SQLite file into BUNTIME_STORE. Stop the server before.

    Example: BUNTIME_STORE=postgresql://… buntime store move
    """
    config = from_environment(os.environ)
    if not config.store:
        raise CommandRefused("Set BUNTIME_STORE to the database to move to.")
    try:
        place, file = place_of(config), store_file(config)
        import asyncio  # not above: the help of all commands would wait for it

        from buntime.stores.moving import move

        if not file.exists() and not file.with_name(file.name + MOVED).exists():
            raise CommandRefused(f"{config.data_dir} has no store to move.")

        async def make_tables() -> None:
            async with opened_database(config, "", _no_member):
                pass

        with only_server(config):
            asyncio.run(make_tables())
            rows = move(file, place)
            require_same(config)
    except StoreUnusable as refused:
        raise CommandRefused(str(refused)) from refused
    told = {"rows": rows, "store": place.shown}
    say(f"{rows} rows are in {place.shown}. The file is now {file.name}{MOVED}; you may remove it.", told, as_json)


@store.command("move-archive")
def move_archive(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIRECTORY", help="The archive until now. Default: DATA_DIR/archive.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the archive from a directory into BUNTIME_ARCHIVE, such as s3://bucket/prefix. Stop the server before.

    The directory stays. You can kill the command and run it again.

    Example: BUNTIME_ARCHIVE=s3://bucket/prefix buntime store move-archive
    """
    config = from_environment(os.environ)
    directory = (source or config.data_dir / "archive").resolve()
    if not config.archive:
        raise CommandRefused("Set BUNTIME_ARCHIVE to the archive to move to.")
    if not directory.is_dir():
        raise CommandRefused(f"{directory} is no directory.")
    from buntime.archives.copying import Differs, copy
    from buntime.archives.directory import DirectoryArchive
    from buntime.archives.opening import archive_of
    from buntime.ports import ArchiveUnavailable, ObjectMissing

    def tell(done: int, of: int) -> None:
        if done % 100 == 0:
            typer.echo(f"{done} of {of} objects", err=True)

    try:
        with only_server(config):
            copied = copy(DirectoryArchive(directory), archive_of(config), tell)
    except (ArchiveUnavailable, OSError) as failed:
        raise CommandRefused(f"The archive cannot be copied: {failed}. Run the command again.") from failed
    except (ObjectMissing, Differs) as wrong:
        raise CommandRefused(f"{wrong} was not copied whole. Run the command again.") from wrong
    told = {"objects": copied, "archive": config.archive}
    say(
        f"{copied} objects were copied to {config.archive}. {directory} can go once the server runs well.",
        told,
        as_json,
    )
