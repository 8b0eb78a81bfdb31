"""Connects a command to the server: the client, its errors and its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from buntime_cli.commands.errors import CommandError, exit_with
from buntime_cli.commands.stopping import Stopped, stoppable
from buntime_cli.servers import NO_KEY, Access, ServersUnreadable, access_to, server_of

if TYPE_CHECKING:
    from buntime_sdk import Buntime


def has_key(access: Access) -> bool:
    """Whether there is a key that fits into a header. The server decides whether it is valid."""
    return bool(access.key) and access.key.isascii()


@contextmanager
def connected(context: typer.Context, as_json: bool = False, access: Access | None = None) -> Iterator["Buntime"]:
    """A client for the block. An error ends the command with status 1, a signal with 128 plus its number.

    `access`: the server and key, by default those of `--server`, the environment or `buntime login`. If `context.obj`
    is set, it is the client: tests pass a fake.
    """
    try:
        with stoppable(), errors_shown("", as_json):
            found = access or access_to(server_of(context))
            with errors_shown(found.url, as_json), _client(context, found) as client:
                yield client
    except Stopped as stopped:
        raise typer.Exit(stopped.exit_code) from None


@contextmanager
def errors_shown(url: str, as_json: bool) -> Iterator[None]:
    """Ends the command with one line about an error. `url`: the server's."""
    from buntime_sdk import BuntimeError

    try:
        yield
    except (BuntimeError, CommandError) as failure:
        exit_with(failure, url, as_json)
    except ServersUnreadable as failure:
        exit_with(CommandError(str(failure), "local_file"), url, as_json)
    except BrokenPipeError:
        raise  # the reader left, as `head` does; typer ends the command quietly
    except OSError as failure:
        about = f"{failure.filename}: " if failure.filename else ""
        exit_with(CommandError(f"{about}{failure.strerror or failure}.", "local_file"), url, as_json)


@contextmanager
def _client(context: typer.Context, access: Access) -> Iterator["Buntime"]:
    if context.obj is not None:
        yield context.obj
        return
    from buntime_sdk import Buntime

    if not has_key(access):
        raise CommandError(NO_KEY, "unauthorized")
    if not access.url.startswith(("http://", "https://")):
        raise CommandError(
            f"The server's URL must begin with http:// or https://, but is {access.url}.", "connection_failed"
        )
    with Buntime(access.key, access.url) as client:
        yield client
