"""Connects a command to the server: the client, its errors and its end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from buntime_cli.commands.errors import NO_KEY, CommandError, exit_with
from buntime_cli.commands.stopping import Stopped, stoppable
from buntime_cli.server_url import server_url

if TYPE_CHECKING:
    from buntime_sdk import Buntime


def has_key() -> bool:
    """Whether there is a key that fits into a header. The server decides whether it is valid."""
    key = os.environ.get("BUNTIME_API_KEY", "")
    return bool(key) and key.isascii()


@contextmanager
def connected(context: typer.Context, as_json: bool = False) -> Iterator["Buntime"]:
    """A client for the block. An error ends the command with status 1, a signal with 128 plus its number.

    If `context.obj` is set, it is the client: tests pass a fake.
    """
    try:
        with stoppable(), _errors_shown(as_json), _client(context) as client:
            yield client
    except Stopped as stopped:
        raise typer.Exit(stopped.exit_code) from None


@contextmanager
def _errors_shown(as_json: bool) -> Iterator[None]:
    from buntime_sdk import BuntimeError

    try:
        yield
    except (BuntimeError, CommandError) as failure:
        exit_with(failure, server_url(), as_json)
    except BrokenPipeError:
        raise  # the reader left, as `head` does; typer ends the command quietly
    except OSError as failure:
        about = f"{failure.filename}: " if failure.filename else ""
        exit_with(CommandError(f"{about}{failure.strerror or failure}.", "local_file"), server_url(), as_json)


@contextmanager
def _client(context: typer.Context) -> Iterator["Buntime"]:
    if context.obj is not None:
        yield context.obj
        return
    from buntime_sdk import Buntime

    if not has_key():
        raise CommandError(NO_KEY, "unauthorized")
    if not server_url().startswith(("http://", "https://")):
        raise CommandError(
            f"BUNTIME_URL must begin with http:// or https://, but is {server_url()}.", "connection_failed"
        )
    with Buntime(base_url=server_url()) as client:
        yield client
