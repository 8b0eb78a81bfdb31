"""The tools for snapshots, restores and forks, with the SDK's fake server."""

import re

from buntime_sdk.testing import AsyncFakeBuntime, FakeResult
from mcp.types import TextContent

from tests.unit.test_mcp_tools import Talk, talking


async def is_refused(talk: Talk, tool: str, **arguments: object) -> str:
    result = await talk.client.call_tool(tool, arguments)
    assert result.is_error
    (part,) = result.content
    assert isinstance(part, TextContent)
    return part.text


async def test_a_restore_brings_back_the_files_of_a_snapshot_and_can_be_undone() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="one")
        taken = await talk.does("snapshot_session", name="first")
        assert (taken["name"], taken["size"]) == ("first", 3)
        assert taken["snapshot"] in talk.text
        await talk.does("write_file", path="a.txt", content="two")
        restored = await talk.does("restore_session", snapshot=taken["snapshot"])
        assert (restored["session"], restored["state"]) == (taken["session"], "active")
        assert (await talk.does("read_file", path="a.txt"))["content"] == "one"
        before, first = (await talk.does("list_snapshots"))["snapshots"]
        assert (before["name"], first["snapshot"], first["session"]) == (
            "before-restore",
            taken["snapshot"],
            taken["session"],
        )
        await talk.does("restore_session", snapshot=before["snapshot"])
        assert (await talk.does("read_file", path="a.txt"))["content"] == "two"


async def test_a_new_session_can_begin_with_a_snapshot() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="one")
        taken = await talk.does("snapshot_session")
        new = await talk.does("new_session", snapshot=taken["snapshot"])
        assert new["session"] != taken["session"]
        read = await talk.does("read_file", path="a.txt")
        assert (read["content"], read["session"]) == ("one", new["session"])
        refused = await is_refused(talk, "new_session", snapshot=taken["snapshot"], image="default")
        assert refused.startswith("invalid_request: Give image or snapshot")


async def test_a_fork_leaves_the_current_session_the_current_one() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="one")
        forked = await talk.does("fork_session")
        assert forked["fork"] != forked["session"]
        await talk.does("write_file", path="a.txt", content="two", session=forked["fork"])
        assert (await talk.does("read_file", path="a.txt", session=forked["session"]))["content"] == "one"
        listed = (await talk.does("list_sessions"))["sessions"]
        assert {one["session"] for one in listed} == {forked["fork"], forked["session"]}


async def test_a_fork_does_not_become_current_by_being_made() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        await talk.does("write_file", path="a.txt", content="one")
        forked = await talk.does("fork_session")
        assert (await talk.does("read_file", path="a.txt"))["session"] == forked["session"]


async def test_a_restored_session_gets_a_new_context() -> None:
    near = AsyncFakeBuntime().on_execute(re.compile("."), FakeResult())
    async with talking(near) as talk:
        before = await talk.does("run_in_context", code="const a = 1")
        taken = await talk.does("snapshot_session")
        await talk.does("restore_session", snapshot=taken["snapshot"])
        after = await talk.does("run_in_context", code="const a = 2")
        assert after["context"] != before["context"]
        assert "This context is new" in talk.text


async def test_refusals_say_what_to_do() -> None:
    near = AsyncFakeBuntime()
    async with talking(near) as talk:
        await talk.does("list_files")
        assert "Find it with list_snapshots." in await is_refused(talk, "restore_session", snapshot="snp_none")
        near.fail("POST", "/sessions/{id}/snapshots", "resource_limit_exceeded", times=9)
        assert "buntime snapshots delete" in await is_refused(talk, "snapshot_session")
        near.fail("POST", "/sessions/{id}/restore", "disk_full")
        assert "new_session with this snapshot" in await is_refused(talk, "restore_session", snapshot="snp_none")


async def test_many_snapshots_are_listed_in_part() -> None:
    near = AsyncFakeBuntime()
    session = await near.sessions.create()
    for _ in range(52):
        await session.snapshot(name="x" * 255)
    async with talking(near) as talk:
        listed = (await talk.does("list_snapshots"))["snapshots"]
        assert (len(listed), {len(one["name"]) for one in listed}) == (50, {64})
        assert talk.text.endswith("… 2 more …")
