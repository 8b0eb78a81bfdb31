"""An assistant that uses `buntime mcp` through the official client library."""

import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent

from tests.acceptance.server import BUNTIME

PATIENCE = 90.0  # seconds; a guard against a hang
OF_ACCOUNT = ("new_session", "list_sessions", "list_snapshots")  # tools that take no session
OLDER, NEWEST = "legacy", "auto"  # protocol revisions 2025-11-25 and 2026-07-28

type Way = tuple[Literal["stdio", "http"], str]
WAYS: list[Way] = [("stdio", OLDER), ("stdio", NEWEST), ("http", OLDER), ("http", NEWEST)]


@dataclass(frozen=True, slots=True)
class Target:
    """The URLs of the server (`url`) and of its `buntime mcp --http` (`mcp_url`), and an API key."""

    url: str
    mcp_url: str
    key: str


@dataclass(slots=True)
class Conversation:
    """A conversation with the tools.

    If the protocol revision has no conversations (`keeps` is false), each call names the session of the last result.
    """

    client: Client
    keeps: bool
    session: str | None = None
    made: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)

    async def calls(self, tool: str, progress: Any = None, **arguments: object) -> CallToolResult:
        if not self.keeps and self.session is not None and tool not in OF_ACCOUNT:
            arguments = {"session": self.session, **arguments}
        self.called.add(tool)
        result = await self.client.call_tool(tool, arguments, PATIENCE, progress)
        named = (result.structured_content or {}).get("session")
        if named is not None and tool != "delete_session":
            self.session = named
            self.made.add(named)
        return result

    async def does(self, tool: str, **arguments: object) -> dict[str, Any]:
        """Calls a tool that must succeed. Returns the structured content."""
        result = await self.calls(tool, **arguments)
        assert not result.is_error, text(result)
        assert result.structured_content is not None
        return dict(result.structured_content)

    async def says(self, tool: str, **arguments: object) -> str:
        """Calls a tool that must succeed. Returns the text that the model reads."""
        result = await self.calls(tool, **arguments)
        assert not result.is_error, text(result)
        return text(result)

    async def is_refused(self, tool: str, **arguments: object) -> str:
        result = await self.calls(tool, **arguments)
        assert result.is_error, text(result)
        return text(result)


def text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def environment(target: Target, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
    return {**kept, "BUNTIME_URL": target.url, "BUNTIME_API_KEY": target.key, **settings}


@asynccontextmanager
async def converse(target: Target, way: Way, **settings: str) -> AsyncIterator[Conversation]:
    """Begins a conversation, and deletes its sessions at the end. `settings` are environment variables for stdio."""
    transport, mode = way
    async with _client(target, way, settings) as client:
        talk = Conversation(client, keeps=transport == "stdio" or mode == OLDER)
        try:
            yield talk
        finally:
            async with httpx2.AsyncClient(headers=bearer(target.key)) as http:
                for session in talk.made:
                    await http.delete(f"{target.url}/sessions/{session}", timeout=PATIENCE)


@asynccontextmanager
async def _client(target: Target, way: Way, settings: Mapping[str, str]) -> AsyncIterator[Client]:
    transport, mode = way
    if transport == "stdio":
        command = StdioServerParameters(command=str(BUNTIME), args=["mcp"], env=environment(target, **settings))
        async with Client(command, mode=mode) as client:
            yield client
        return
    async with (
        httpx2.AsyncClient(headers=bearer(target.key), timeout=PATIENCE) as http,
        Client(streamable_http_client(target.mcp_url, http_client=http), mode=mode) as client,
    ):
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def serve_mcp(url: str, *options: str, **settings: str) -> Iterator[str]:
    """Runs `buntime mcp --http` on a free port. Yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
    command = [str(BUNTIME), "mcp", "--http", "--port", str(port), *options]
    with subprocess.Popen(command, env={**kept, "BUNTIME_URL": url, **settings}, stdin=subprocess.DEVNULL) as process:
        try:
            _wait(process, port)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "buntime mcp ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < deadline, "buntime mcp does not listen"
            time.sleep(0.05)
        else:
            return
