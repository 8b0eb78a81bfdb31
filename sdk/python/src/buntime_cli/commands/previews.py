"""`buntime open`: opens a session's preview in the browser."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import print_json
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import Session

previews = typer.Typer()

WEB_PORT = 8080
OF_ONE_TOKEN = ("port", "private", "ttl")  # options that mean nothing where all tokens are revoked


@previews.command("open")
def open_command(
    context: typer.Context,
    session: SessionName,
    port: Annotated[int, typer.Option(metavar="PORT", help="The port that the program listens on.")] = WEB_PORT,
    private: Annotated[bool, typer.Option("--private", help="Add a token even if the port is public.")] = False,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long the token is valid.")] = "1h",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the URL if stdout is a terminal.")
    ] = True,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Revoke all preview tokens of the session, and open nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a preview's URL and open it in the browser.

    The URL has a token if the port is not public.

    Examples: buntime open demo --port 3000 --private    buntime open demo --revoke
    """
    if revoke:
        _revoke(context, session, as_json)
        return
    valid = seconds(ttl)
    with connected(context, as_json) as client:
        found = find(client, session)
        found.refresh()
        secret = private or not _is_open(found, port)
        url = found.preview_token(port=port, ttl=valid).url if secret else found.preview_url(port)
    if as_json:
        print_json({"url": url, "port": port, "token": secret})
        return
    print(url, flush=True)
    if browser and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(url)


def _revoke(context: typer.Context, session: str, as_json: bool) -> None:
    """Raises BadParameter for options that would promise less than is revoked."""
    sources = {name: context.get_parameter_source(name) for name in OF_ONE_TOKEN}
    given = [f"--{name}" for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise typer.BadParameter(f"--revoke revokes the tokens of all ports. Leave out {' and '.join(given)}.")
    with connected(context, as_json) as client:
        found = find(client, session)
        count = found.revoke_preview_tokens()
    if as_json:
        print_json({"revoked": count})
    else:
        print(f"Revoked {count} preview token{'' if count == 1 else 's'} of {found.id}.")


def _is_open(session: "Session", port: int) -> bool:
    return session.preview.visibility == "public" and port in session.preview.ports
