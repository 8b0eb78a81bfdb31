"""`buntime mcp`."""

import os
from typing import Annotated

import typer

TTL = 21600
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def mcp_command(
    http: Annotated[bool, typer.Option("--http", help="Over streamable HTTP, at /mcp, in place of stdio.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With --http.", min=1, max=65535)] = 8090,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that it is reached by, such as mcp.example.com; with --http.")
    ] = None,
    share_key: Annotated[
        bool, typer.Option("--share-key", help="With --http: whoever reaches it uses BUNTIME_API_KEY.")
    ] = False,
    ttl: Annotated[
        int, typer.Option(help="Seconds that a session which it makes is there after it was used, from 300.", min=300)
    ] = TTL,
) -> None:
    """Serve the tools of a session to an MCP client: Claude, Cursor, VS Code and others.

    BUNTIME_URL and BUNTIME_API_KEY say which server and whose. Over HTTP each caller brings its own key as
    `Authorization: Bearer btk_…`.
    """
    try:
        from buntime.clients.mcp.http_keys import KeysOnly
        from buntime.clients.mcp.keys import Keys, asking
        from buntime.clients.mcp.server import build, http_app
        from buntime.clients.mcp.tool_context import Settings
    except ImportError as missing:
        if (missing.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        typer.echo(f"buntime: {missing.name} is not installed: pip install 'buntime[mcp]'", err=True)
        raise typer.Exit(1) from None
    if http and share_key and host not in LOOPBACK:
        typer.echo(
            f"buntime: --share-key would give your key to whoever reaches {host}: leave out one of them", err=True
        )
        raise typer.Exit(2)
    own = os.environ.get("BUNTIME_API_KEY") or None
    if own is None and (not http or share_key):
        typer.echo("buntime: There is no API key. Set BUNTIME_API_KEY, or make one: buntime keys create", err=True)
        raise typer.Exit(1)
    url = os.environ.get("BUNTIME_URL") or None
    server = build(Settings(url, own if not http or share_key else None, ttl))
    if not http:
        server.run()
        return
    import uvicorn

    app = http_app(server, host, allow_host or ())
    door = app if share_key else KeysOnly(app, Keys(asking(url)))
    uvicorn.run(door, host=host, port=port, log_level="warning")
