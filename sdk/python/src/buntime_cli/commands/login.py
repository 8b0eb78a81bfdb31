"""`buntime login`, `logout`, `servers`: servers and keys that are kept for later commands."""

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected, errors_shown
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import print_json, print_table
from buntime_cli.servers import Access, access_to, keep_servers, kept_servers

if TYPE_CHECKING:
    from buntime_sdk import Buntime

login = typer.Typer()

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ServerName = Annotated[str, typer.Argument(metavar="NAME", help="Your name for the server.")]


@login.command("login")
def login_command(
    context: typer.Context,
    name: ServerName = "default",
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server's URL. Default: BUNTIME_URL, or http://localhost:8000."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep a server's URL and an API key for later commands.

    Asks for the key without showing it, or reads it from stdin if that is not a terminal. The server must accept the
    key. It becomes the default of commands that name no server with `buntime --server NAME COMMAND`. The environment
    variables BUNTIME_URL and BUNTIME_API_KEY win over it.

    Example: buntime login prod --url https://box.example
    """
    if NAME.fullmatch(name) is None:
        raise typer.BadParameter("A name has at most 64 letters, digits, '.', '_' and '-'.", param_hint="NAME")
    with errors_shown((url or access_to(None).url), as_json):
        servers = kept_servers()
        access = Access((url or access_to(None).url).rstrip("/"), _asked_key())
        with connected(context, as_json, access) as client:
            _require_accepted(client, access)
        file = keep_servers(servers.with_server(name, access))
    if as_json:
        print_json({"name": name, "url": access.url})
    else:
        print(f"Logged in to {access.url} as {name}. The key is in {file}, which only you can read.")


@login.command("logout")
def logout_command(name: ServerName = "default", as_json: AsJson = False) -> None:
    """Forget a server and its key. The key stays valid: revoke it on the server.

    Example: buntime logout prod
    """
    with errors_shown("", as_json):
        servers = kept_servers()
        if name not in servers.by_name:
            raise CommandError(f"There is no server {name}. List servers with: buntime servers")
        keep_servers(servers.without(name))
    if as_json:
        print_json({"name": name})
    else:
        print(f"{name} is forgotten.")


@login.command("servers")
def servers_command(as_json: AsJson = False) -> None:
    """List the servers that you are logged in to. Never shows a key.

    Example: buntime servers
    """
    with errors_shown("", as_json):
        servers = kept_servers()
    rows = [(name, access.url, name == servers.default) for name, access in servers.by_name.items()]
    if as_json:
        print_json([{"name": name, "url": url, "default": is_default} for name, url, is_default in rows])
    else:
        print_table(("NAME", "DEFAULT", "URL"), [(name, "yes" if used else "", url) for name, url, used in rows])


def _require_accepted(client: "Buntime", access: Access) -> None:
    """Raises CommandError if the server refuses the key, BuntimeError if it does not answer."""
    from buntime_sdk import Forbidden, Unauthorized

    try:
        client.sessions.list(page_size=1).page()
    except Unauthorized:
        raise CommandError(
            f"{access.url} does not accept this key, so nothing was kept. Copy the whole key (btk_…), or create one on "
            "the server with: buntime keys create",
            "unauthorized",
        ) from None
    except Forbidden as refused:
        if "scope" not in refused.details:  # the server knows a key whose scopes it names
            raise


def _asked_key() -> str:
    """Raises CommandError if there is none."""
    if sys.stdin.isatty():
        from getpass import getpass

        key = getpass("API key: ", stream=sys.stderr)
    else:
        key = sys.stdin.readline()
    if not key.strip():
        raise CommandError("There is no API key on the standard input.", "unauthorized")
    return key.strip()
