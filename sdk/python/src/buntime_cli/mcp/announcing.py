"""Serves HTTP, and says where."""

import socket

import typer
import uvicorn


class AnnouncingServer(uvicorn.Server):
    """Prints its URL on stderr as soon as clients can connect."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        typer.echo(f"buntime: MCP at http://{host}:{self.config.port}/mcp", err=True)
