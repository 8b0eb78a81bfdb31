"""`buntime store move`: from the SQLite file into the database of BUNTIME_STORE."""

import os

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
