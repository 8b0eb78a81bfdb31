"""What a model reads after wrong arguments, and what the tools for files and processes accept."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from buntime_cli.mcp.line_ranges import numbered, read_lines
from buntime_cli.mcp.server import Offered, ToolServer, build, offered
from buntime_cli.mcp.tool_context import Settings, ToolContext
from buntime_sdk import AsyncBuntime
from buntime_sdk.testing import AsyncFakeBuntime, FakeResult
from mcp.client.client import Client
from mcp.types import CallToolResult, TextContent

from tests.unit.test_mcp_tools import NearToolContext, Talk

SETTINGS = Settings("http://near.invalid", "btk_0", 3600)


@asynccontextmanager
async def talking(near: AsyncBuntime) -> AsyncIterator[Talk]:
    server = ToolServer("near", tools=[one.as_tool() for one in offered(NearToolContext(near))])
    async with Client(server) as client:
        yield Talk(client)


async def said(talk: Talk, tool: str, **arguments: object) -> str:
    """The text of a call that must be refused."""
    result = await talk.client.call_tool(tool, arguments)
    assert result.is_error
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("run_command", {}, "invalid_request: run_command needs 'command'."),
        (
            "run_command",
            {"cmd": "ls"},
            "invalid_request: run_command needs 'command'; it has no 'cmd'; "
            "it takes command, timeout, stdin, working_dir, session.",
        ),
        (
            "list_files",
            {"dir": "/etc"},
            "invalid_request: list_files has no 'dir'; it takes path, recursive, session.",
        ),
        (
            "list_files",
            {"dir": "/etc", "deep": True},
            "invalid_request: list_files has no 'dir', 'deep'; it takes path, recursive, session.",
        ),
        (
            "new_session",
            {"ttl": 60},
            "invalid_request: new_session has no 'ttl'; it takes name, image, snapshot, awake_while_working.",
        ),
        (
            "edit_file",
            {"path": "a"},
            "invalid_request: edit_file needs 'old'; edit_file needs 'new'.",
        ),
        (
            "run_command",
            {"command": "ls", "timeout": 0},
            "invalid_request: run_command: 'timeout' must be greater than or equal to 1, not 0.",
        ),
        (
            "sleep_session",
            {"depth": "coma"},
            "invalid_request: sleep_session: 'depth' must be 'idle' or 'deep-sleep', not 'coma'.",
        ),
    ],
)
async def test_wrong_arguments_are_answered_with_the_tools_own(
    tool: str, arguments: dict[str, object], text: str
) -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        assert await said(talk, tool, **arguments) == text


@pytest.mark.parametrize("name", [one.tool.__name__ for one in offered(ToolContext(SETTINGS))])
async def test_every_tool_refuses_unknown_arguments_and_its_schema_says_so(name: str) -> None:
    async with Client(build(SETTINGS)) as client:
        (tool,) = [tool for tool in (await client.list_tools()).tools if tool.name == name]
        assert tool.input_schema["additionalProperties"] is False
        needed = dict.fromkeys(tool.input_schema.get("required", []), "idle")
        needed |= {one: 1 for one in needed if tool.input_schema["properties"][one]["type"] == "integer"}
        takes = ", ".join(tool.input_schema["properties"]) or "no arguments"
        text = f"invalid_request: {name} has no 'unknown'; it takes {takes}."
        assert await said(Talk(client), name, **needed, unknown=1) == text


async def test_a_refused_call_does_nothing() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await said(talk, "write_file", path="a.txt", content="a", mode=0o600)
        assert (await talk.does("list_files"))["total"] == 0


# --- runs ---


@pytest.mark.parametrize(
    ("arguments", "directory"),
    [({}, "/workspace"), ({"working_dir": "app"}, "app"), ({"working_dir": "/tmp"}, "/tmp")],
)
async def test_a_command_runs_in_the_folder_that_the_call_names(arguments: dict[str, object], directory: str) -> None:
    async with talking(AsyncFakeBuntime().on_execute("pwd", lambda run: run.working_dir)) as talk:
        assert (await talk.does("run_command", command="pwd", **arguments))["stdout"] == directory


# --- files ---


async def test_a_range_of_lines_is_read_with_numbers() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="one\ntwo\nthree\nfour\n")
        part = await talk.does("read_file", path="a.txt", start_line=2, end_line=3, line_numbers=True)
        assert (part["content"], part["nextLine"]) == ("     2\ttwo\n     3\tthree\n", 4)
        rest = await talk.does("read_file", path="a.txt", start_line=4)
        assert (rest["content"], "nextLine" in rest) == ("four\n", False)
        assert (await talk.does("read_file", path="a.txt", start_line=9))["content"] == ""
        assert "before start_line" in await said(talk, "read_file", path="a.txt", start_line=3, end_line=2)
        assert "pass start_line instead" in await said(talk, "read_file", path="a.txt", offset=1, line_numbers=True)


async def test_reading_by_lines_to_the_end_gives_the_whole_file() -> None:
    whole = "".join(f"{number} é\n" for number in range(5000))
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content=whole)
        read, line = "", 1
        while True:
            part = await talk.does("read_file", path="a.txt", start_line=line, limit=10_000)
            read += part["content"]
            if "nextLine" not in part:
                break
            line = part["nextLine"]
        assert read == whole


async def test_a_line_that_is_too_long_says_where_it_goes_on() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="a\n" + "x" * 100)
        part = await talk.does("read_file", path="a.txt", start_line=2, limit=40)
        rest = await talk.does("read_file", path="a.txt", offset=part["nextOffset"])
        assert part["content"] + rest["content"] == "x" * 100


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("first", "last", "content", "is_end"),
    [
        (1, None, "a\nbb\n\nc", True),
        (2, 3, "bb\n\n", False),
        (4, 4, "c", True),
        (3, 9, "\nc", True),
        (9, None, "", True),
    ],
)
async def test_lines_are_found_however_the_file_arrives(
    size: int, first: int, last: int | None, content: str, is_end: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        whole = b"a\nbb\n\nc"
        for begin in range(0, len(whole), size):
            yield whole[begin : begin + size]

    lines = await read_lines(chunks(), first, last, 1000)
    assert (lines.content.decode(), lines.is_end) == (content, is_end)


def test_numbers_stand_before_a_tab() -> None:
    assert numbered("a\n\nb", 9) == "     9\ta\n    10\t\n    11\tb\n"


async def test_every_occurrence_is_replaced_only_on_request() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="x y x")
        assert "2 times" in await said(talk, "edit_file", path="a.txt", old="x", new="z")
        edited = await talk.does("edit_file", path="a.txt", old="x", new="z", replace_all=True)
        assert edited["replaced"] == 2
        assert (await talk.does("read_file", path="a.txt"))["content"] == "z y z"
        assert (await said(talk, "edit_file", path="a.txt", old="x", new="z", replace_all=True)).startswith(
            "invalid_request: a.txt has that text 0 times."
        )


# --- processes ---


async def test_a_process_is_named_and_addressed_by_its_name() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        first = (await talk.does("start_process", command="sleep 1", name="web"))["process"]["process"]
        newest = (await talk.does("start_process", command="sleep 2", name="web"))["process"]["process"]
        await talk.does("start_process", command="sleep 3")
        assert first != newest
        assert (await talk.does("stop_process", process="web"))["process"]["process"] == newest
        assert (await talk.does("stop_process", process=first))["process"]["process"] == first
        assert (await said(talk, "process_logs", process="wbe")).startswith(
            "process_not_found: No process has the name wbe. Find the process with list_processes."
        )


@pytest.mark.parametrize(("exit_code", "listening"), [(0, True), (1, False)])
async def test_a_preview_says_whether_anything_listens(exit_code: int, listening: bool) -> None:
    near = AsyncFakeBuntime()
    near.on_execute("exec 3<>/dev/tcp/127.0.0.1/3000", FakeResult(exit_code=exit_code))
    async with talking(near) as talk:
        assert (await talk.does("preview_url", port=3000))["listening"] is listening


# --- sessions ---


async def test_a_list_of_sessions_has_their_names() -> None:
    async with AsyncFakeBuntime() as near:
        named = (await near.sessions.create(name="shop")).id
        other = (await near.sessions.create(metadata={"name": "x"})).id
        async with talking(near) as talk:
            shown = await talk.does("list_sessions")
            text = (await talk.client.call_tool("list_sessions", {})).content[0]
    assert {one["session"]: one["name"] for one in shown["sessions"]} == {named: "shop", other: None}
    assert isinstance(text, TextContent)
    assert f"{named}  shop  active  until " in text.text


async def test_a_new_session_of_a_name_is_the_one_that_has_it() -> None:
    async with AsyncFakeBuntime() as near:
        theirs = await near.sessions.create(name="shop", ttl=600)
        await theirs.files.write("a.txt", "kept")
        await theirs.sleep()
        async with talking(near) as talk:
            found = await talk.does("new_session", name="shop")
            assert (found["session"], found["state"]) == (theirs.id, "idle")
            assert found["note"].startswith("This session existed already")
            assert (await talk.does("read_file", path="a.txt"))["session"] == theirs.id
            made = await talk.does("new_session", name="other")
            assert made["note"].startswith("This session is new")
            assert (await near.sessions.get("name:other")).id == made["session"]
        assert (await theirs.refresh()).expires_at == theirs.expires_at


async def test_tools_take_a_name_in_place_of_an_id() -> None:
    async with AsyncFakeBuntime() as near:
        named = (await near.sessions.create(name="shop")).id
        async with talking(near) as talk:
            assert (await talk.does("write_file", path="a.txt", content="a", session="name:shop"))["session"] == named
            assert await talk.does("delete_session", session="name:shop") == {"session": named, "state": "deleted"}
            assert await said(talk, "delete_session", session="name:shop")


async def test_a_deletion_of_all_sessions_deletes_none_and_says_how() -> None:
    async with AsyncFakeBuntime() as near, talking(near) as talk:
        kept = (await near.sessions.create()).id
        text = await said(talk, "delete_session", session="all")
        assert [one["session"] for one in (await talk.does("list_sessions"))["sessions"]] == [kept]
    assert text.startswith("session_not_found: ")
    assert text.endswith(
        "Nothing was deleted. Find ids (ses_…) with list_sessions, and delete one session with each call of "
        "delete_session."
    )


async def test_the_description_of_a_timeout_says_that_a_plan_may_allow_less() -> None:
    tools = {tool.name: tool for tool in await build(SETTINGS).list_tools()}
    for name in ("execute_code", "run_command", "run_in_context"):
        assert "plan may allow less than 3600" in tools[name].input_schema["properties"]["timeout"]["description"]


# --- refusals of the server ---


@pytest.mark.parametrize(
    ("tool", "arguments", "failure", "text"),
    [
        (
            "start_process",
            {"command": "serve", "wait_for_port": 99_999},
            ("waitFor.port", "waitFor.port must be 1 to 65535, not 99999."),
            "invalid_request: wait_for_port must be 1 to 65535, not 99999.",
        ),
        (
            "start_process",
            {"command": "serve", "wait_for_output": "("},
            ("waitFor.output", "waitFor.output is not a valid regular expression: unclosed group"),
            "invalid_request: wait_for_output is not a valid regular expression: unclosed group.",
        ),
        (
            "run_command",
            {"command": "ls", "working_dir": "/nope"},
            ("workingDir", "workingDir /nope is not a directory."),
            "invalid_request: working_dir /nope is not a directory.",
        ),
        (
            "search_files",
            {"query": "a", "path": "workingDir"},
            ("path", "path workingDir is not a directory."),
            "invalid_request: path workingDir is not a directory.",
        ),
    ],
)
async def test_a_refusal_has_the_names_of_the_tools_arguments(
    tool: str, arguments: dict[str, object], failure: tuple[str, str], text: str
) -> None:
    async with talking(refusing(*failure)) as talk:
        assert await said(talk, tool, **arguments) == text


async def test_a_refusal_without_a_field_has_the_tools_name_too() -> None:
    near = refusing("", "data may have 1048576 bytes at a time, not 1048577.")
    async with talking(near) as talk:
        text = await said(talk, "send_input", process="proc_a", text="x")
        assert text == "invalid_request: text may have 1048576 bytes at a time, not 1048577."


async def test_a_folder_that_does_not_exist_is_told_with_the_tools_name() -> None:
    missing = FakeResult(stderr="buntime: workingDir /nope: No such file or directory\n", exit_code=1)
    async with talking(AsyncFakeBuntime().on_execute("ls", missing).on_start("ls", missing)) as talk:
        told = "buntime: working_dir /nope: No such file or directory\n"
        assert (await talk.does("run_command", command="ls", working_dir="/nope"))["stderr"] == told
        assert told in talk.text
        assert (await talk.does("start_process", command="ls", working_dir="/nope"))["output"] == told


def refusing(field: str, message: str) -> AsyncBuntime:
    """A server that refuses everything but a session."""
    session = {"sessionId": "ses_a", "expiresAt": "2099-01-01T00:00:00Z", "createdAt": "2026-01-01T00:00:00Z"}
    limits = {"resourceLimits": {"cpu": 1, "memory": 512, "timeout": 30, "disk": 1024}}
    error = {"code": "invalid_request", "message": message, "retryable": False, "details": {"field": field}}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/sessions"):
            return httpx2.Response(200, json={**session, **limits})
        return httpx2.Response(400, json={"error": error})

    return AsyncBuntime("btk_a", "http://near.invalid", transport=httpx2.MockTransport(answer))


# --- contexts ---


def evaluating() -> AsyncFakeBuntime:
    return AsyncFakeBuntime().on_execute(re.compile("x"), FakeResult())


async def test_a_mistyped_context_loses_nothing() -> None:
    async with talking(evaluating()) as talk:
        latest = (await talk.does("run_in_context", code="let x = 1"))["context"]
        text = await said(talk, "run_in_context", code="x", context_id="ctx_typo")
        assert text.startswith("context_not_found: ")
        assert f"Omit `context_id` to use the latest context, {latest}." in text
        assert (await talk.does("run_in_context", code="x"))["context"] == latest


async def test_without_a_latest_context_a_mistyped_one_leads_to_a_new_one() -> None:
    async with talking(evaluating()) as talk:
        text = await said(talk, "run_in_context", code="x", context_id="ctx_typo")
        assert "Omit `context_id` to get a new context." in text


async def test_a_context_that_a_call_names_becomes_the_latest() -> None:
    async with evaluating() as near, talking(near) as talk:
        first = await talk.does("run_in_context", code="let x = 1")
        other = (await (await near.sessions.get(first["session"])).contexts.create()).id
        await talk.does("run_in_context", code="x", context_id=other)
        assert (await talk.does("run_in_context", code="x"))["context"] == other


# --- what a client sees at first ---


async def test_a_description_has_no_indentation_of_the_source() -> None:
    async def tool() -> CallToolResult:
        raise NotImplementedError

    tool.__doc__ = "Do it.\n\n        More about it.\n        "  # as Python 3.11 and 3.12 keep it
    assert Offered(tool, "Do").as_tool().description == "Do it.\n\nMore about it."


async def test_only_tools_are_announced() -> None:
    async with Client(build(SETTINGS)) as client:
        may = client.server_capabilities
        assert may is not None
        assert may.tools is not None
        assert (may.prompts, may.resources) == (None, None)
