"""`buntime mcp`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Never

import typer

from buntime_cli.extras import how_to_install
from buntime_cli.servers import NO_KEY, ServersUnreadable, access_to, server_of
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

TTL, SHORTEST_TTL = 21_600, 300  # seconds
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Http = Annotated[bool, typer.Option("--http", help="Serve streamable HTTP at /mcp instead of stdio.")]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="With --http: the address to listen on.")]
Port = Annotated[int, typer.Option(metavar="PORT", help="With --http: the port to listen on.", min=1, max=65535)]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="With --http: a host name by which clients reach the server, such as mcp.example.com."
    ),
]
ShareKey = Annotated[
    bool, typer.Option("--share-key", help="With --http: let every program on this machine use your key.")
]
Ttl = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="How long a session lives, such as 90m or 6h; at least 5m. Use in the second half renews it.",
    ),
]


def mcp_command(
    context: typer.Context,
    http: Http = False,
    host: Host = "127.0.0.1",
    port: Port = 8090,
    allow_host: AllowHost = None,
    share_key: ShareKey = False,
    ttl: Ttl = f"{TTL // 3600}h",
) -> None:
    """Serve a session's tools to an MCP client.

    A client is a program such as Claude, Cursor or VS Code. BUNTIME_URL and BUNTIME_API_KEY, or `buntime login`, select
    the server and the account. Over HTTP each caller sends its own key as `Authorization: Bearer btk_…`.

    Example: claude mcp add buntime -- buntime mcp
    """
    _require_library()
    from buntime_cli.mcp.server import build
    from buntime_cli.mcp.tool_context import Settings

    lifetime = _lifetime(ttl)
    if http and share_key and host not in LOOPBACK:
        _fail(f"--share-key would let everyone who reaches {host} use your key. Omit --share-key or --host.", 2)
    try:
        access = access_to(server_of(context))
    except ServersUnreadable as unreadable:
        _fail(str(unreadable), 1)
    key = (access.key or None) if share_key or not http else None
    if key is None and (share_key or not http):
        _fail(NO_KEY, 1)
    url = access.url
    server = build(Settings(url, key, lifetime))
    if http:
        _serve_http(server, url, host, port, allow_host or (), share_key=share_key)
    else:
        server.run()


def _lifetime(text: str) -> int:
    """Seconds. Raises BadParameter."""
    if (lifetime := seconds(text)) < SHORTEST_TTL:
        raise typer.BadParameter(f"--ttl must be at least {SHORTEST_TTL} seconds, not {text}.")
    return lifetime


def _require_library() -> None:
    try:
        import mcp.server.mcpserver  # noqa: F401 - an optional dependency
    except ImportError as missing:
        if (missing.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        _fail(how_to_install("mcp"), 1)


def _serve_http(
    server: "MCPServer", url: str, host: str, port: int, allowed_hosts: Sequence[str], *, share_key: bool
) -> None:
    import uvicorn

    from buntime_cli.mcp.announcing import AnnouncingServer
    from buntime_cli.mcp.http_keys import RequireKey
    from buntime_cli.mcp.keys import Keys, asking
    from buntime_cli.mcp.server import http_app

    app = http_app(server, host, allowed_hosts)
    checked = app if share_key else RequireKey(app, Keys(asking(url)))
    AnnouncingServer(uvicorn.Config(checked, host=host, port=port, log_level="warning")).run()


def _fail(sentence: str, status: int) -> Never:
    typer.echo(f"buntime: {sentence}", err=True)
    raise typer.Exit(status)
