"""A low-level HTTP client for older protocol revisions of MCP."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.clients.assistant import PATIENCE, bearer


@dataclass(slots=True)
class OlderClient:
    http: httpx2.AsyncClient
    mcp_url: str
    headers: dict[str, str]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def connect(
        cls, http: httpx2.AsyncClient, mcp_url: str, key: str, revision: str = "2025-06-18"
    ) -> "OlderClient":
        accepted = "application/json, text/event-stream"
        older = cls(http, mcp_url, {**bearer(key), "Accept": accepted})
        reply = await older.sends(hello(revision))
        assert answered(reply)["result"]["protocolVersion"] == revision
        older.headers["Mcp-Session-Id"] = reply.headers["mcp-session-id"]
        if revision >= "2025-06-18":
            older.headers["Mcp-Protocol-Version"] = revision
        assert (await older.sends({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
        return older

    def request(self, method: str, **params: object) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}

    async def sends(self, message: dict[str, Any]) -> httpx2.Response:
        return await self.http.post(self.mcp_url, headers=self.headers, json=message, timeout=PATIENCE)

    async def does(self, tool: str, **arguments: object) -> dict[str, Any]:
        result = answered(await self.sends(self.request("tools/call", name=tool, arguments=arguments)))["result"]
        assert not result.get("isError"), result
        return dict(result["structuredContent"])


def hello(revision: str) -> dict[str, Any]:
    asked = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": asked}


def answered(reply: httpx2.Response) -> dict[str, Any]:
    """Returns the answer: the JSON body, or the last event of a stream."""
    assert reply.status_code == 200, reply.text
    if reply.headers["content-type"].startswith("application/json"):
        return dict(reply.json())
    return dict(json.loads([line for line in reply.text.splitlines() if line.startswith("data: {")][-1][6:]))
