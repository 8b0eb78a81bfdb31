"""Tool results stay within their limits and say where the rest is. The tests use the SDK's fake server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from buntime_cli.mcp import run_watch
from buntime_cli.mcp.conversations import Conversation
from buntime_cli.mcp.output import SHOWN
from buntime_cli.mcp.server import offered
from buntime_cli.mcp.tool_context import Settings, ToolContext
from buntime_sdk import AsyncBuntime, Forms
from buntime_sdk.testing import AsyncFakeBuntime, FakeResult
from mcp.client.client import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import TextContent

MANY = re.compile("many")


class NearToolContext(ToolContext):
    """A tool context whose server is in this process."""

    def __init__(self, near: AsyncBuntime) -> None:
        super().__init__(Settings(None, None, 3600))
        self._near = near

    @asynccontextmanager
    async def client(self, context: Context[Any, Any]) -> AsyncIterator[tuple[AsyncBuntime, Conversation]]:
        yield self._near, Conversation.of_process()


@dataclass(slots=True)
class Talk:
    client: Client
    shown: int = 0  # size of the last result in bytes
    text: str = ""  # of the last result

    async def does(self, tool: str, progress: Any = None, **arguments: object) -> dict[str, Any]:
        """Calls a tool that must succeed. Returns the structured content."""
        result = await self.client.call_tool(tool, arguments, progress_callback=progress)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        self.shown = len(result.model_dump_json())
        self.text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        return dict(result.structured_content)


@asynccontextmanager
async def talking(near: AsyncBuntime) -> AsyncIterator[Talk]:
    server = MCPServer("near")
    for one in offered(NearToolContext(near)):
        server.add_tool(one.tool)
    async with Client(server) as client:
        yield Talk(client)


# --- files ---


async def test_reading_a_file_to_its_end_tells_its_size() -> None:
    whole = "".join(f"{number} é\n" for number in range(10_000))
    size = len(whole.encode())
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content=whole)
        part = await talk.does("read_file", path="a.txt", limit=30_001)
        read = part["content"]
        while "nextOffset" in part:
            assert part["size"] == size
            part = await talk.does("read_file", path="a.txt", offset=part["nextOffset"], limit=30_001)
            read += part["content"]
        assert (read, part["size"]) == (whole, size)


@pytest.mark.parametrize("limit", [9, 10, 11])
async def test_a_result_says_that_more_follows(limit: int) -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="0123456789")
        part = await talk.does("read_file", path="a.txt", limit=limit)
        assert part.get("nextOffset") == (9 if limit == 9 else None)
        assert (part["content"], part["size"]) == ("0123456789"[:limit], 10)


@pytest.mark.parametrize("offset", [10, 11, 1 << 40, 1 << 80])
async def test_a_read_beyond_the_end_is_empty(offset: int) -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="0123456789")
        part = await talk.does("read_file", path="a.txt", offset=offset)
        assert (part["content"], part["size"], "nextOffset" in part) == ("", 10, False)
        await talk.does("write_file", path="empty.txt", content="")
        assert (await talk.does("read_file", path="empty.txt", offset=offset))["content"] == ""


async def test_an_empty_file_is_empty() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="")
        part = await talk.does("read_file", path="a.txt")
        assert (part["content"], part["size"]) == ("", 0)


# --- contexts ---


async def test_the_result_of_a_run_that_displays_a_lot_is_bounded() -> None:
    near = AsyncFakeBuntime()
    picture, texts = "iVBO" * 100, [f"{number}: {'x' * 3_000}" for number in range(3_000)]
    near.on_execute(MANY, FakeResult(displayed=[Forms(text, png=picture) for text in texts]))
    async with talking(near) as talk:
        values = await talk.does("run_in_context", code="many")
        assert talk.shown < 4 * SHOWN
        part = await talk.does("read_file", path=values["displayedFile"], limit=100_000)
        assert part["content"].startswith("\n".join(texts[:30]))


async def test_some_of_many_written_files_are_named() -> None:
    near = AsyncFakeBuntime()
    near.on_execute(MANY, FakeResult(files_written=[f"{number}.txt" for number in range(5_000)]))
    async with talking(near) as talk:
        values = await talk.does("execute_code", code="many")
        assert (len(values["filesWritten"]), values["filesWrittenMore"]) == (50, 4_950)


# --- processes ---


async def test_a_long_command_is_cut_in_the_values_too() -> None:
    near = AsyncFakeBuntime().on_start(MANY, FakeResult(running=True))
    async with talking(near) as talk:
        begun = await talk.does("start_process", command="many " + "x" * 900)
        listed = await talk.does("list_processes")
        assert [len(one["command"]) for one in (begun["process"], *listed["processes"])] == [200, 200]


async def test_one_call_shows_the_end_of_a_long_log_and_its_cursor_leads_on() -> None:
    whole = "".join(f"{number}\n" for number in range(200_000)) + "LAST\n"
    async with talking(AsyncFakeBuntime().on_start(MANY, FakeResult(whole, running=True))) as talk:
        process = (await talk.does("start_process", command="many"))["process"]["process"]
        logs = await talk.does("process_logs", process=process)
        assert logs["output"].startswith("0\n1\n")
        assert logs["output"].endswith("199999\nLAST\n")
        assert logs["cursor"] == len(whole)
        assert talk.shown < 4 * SHOWN
        (path,) = set(re.findall(r"read_file (\S+)", logs["output"]))
        assert (await talk.does("read_file", path=path, offset=len(whole) - 5))["content"] == "LAST\n"
        assert (await talk.does("process_logs", process=process, cursor=logs["cursor"]))["output"] == ""
        part = await talk.does("process_logs", process=process, cursor=0)
        assert part["cursor"] < 20_000  # one part per call


@pytest.mark.parametrize(
    ("awaited", "message"),
    [({"wait_for_port": 8080}, "waiting for port 8080"), ({"wait_for_output": "ready"}, "waiting for output")],
)
async def test_a_start_that_waits_reports_progress(
    monkeypatch: pytest.MonkeyPatch, awaited: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(run_watch, "PROGRESS_SECONDS", 0.05)
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async with talking(slow()) as talk:
        await talk.does("start_process", progress, command="serve", wait_seconds=77, **awaited)
        assert len(told) >= 2
        assert {(total, said) for _, total, said in told} == {(77, message)}
        told.clear()
        await talk.does("start_process", progress, command="serve")
        assert told == []


async def test_a_start_says_that_the_port_was_in_use_before() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        first = await talk.does("start_process", command="serve", wait_for_port=8080)
        assert first["ready"] is True
        second = await talk.does("start_process", command="serve", wait_for_port=8080)
        assert (second["ready"], second["portWasInUse"]) == (False, True)
        assert "Port 8080 was already in use before the process started." in talk.text


def slow() -> AsyncBuntime:
    """Makes processes of the fake server take a moment to start."""
    session = {"sessionId": "ses_a", "expiresAt": "2099-01-01T00:00:00Z", "createdAt": "2026-01-01T00:00:00Z"}
    process = {"processId": "proc_a", "status": "running", "exitCode": None, "reason": None, "command": "serve"}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/processes/start":
            await asyncio.sleep(0.5)
            return httpx2.Response(200, json={**process, "name": None, "ready": True})
        if request.url.path == "/processes/logs":
            return httpx2.Response(200, json={"entries": [], "cursor": 0, "dropped": 0, **process})
        return httpx2.Response(200, json=session)

    return AsyncBuntime("btk_a", "http://near.invalid", transport=httpx2.MockTransport(answer))
