"""Which session a conversation with `buntime mcp` uses, and what other clients see of it."""

import asyncio
import re

import httpx2
import pytest

from tests.acceptance.client import Client
from tests.acceptance.server import Server
from tests.clients.assistant import NEWEST, OLDER, Target, Way, bearer, converse
from tests.clients.older_client import OlderClient

pytestmark = pytest.mark.sandbox

keeping = pytest.mark.parametrize("way", [("stdio", OLDER), ("stdio", NEWEST), ("http", OLDER)], ids="-".join)


@keeping
async def test_simultaneous_first_calls_create_one_session(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        await asyncio.gather(*(talk.does("run_command", command=f"touch {number}") for number in range(4)))
        assert len(talk.made) == 1
        assert {one["path"] for one in (await talk.does("list_files"))["files"]} >= {"0", "1", "2", "3"}


@keeping
async def test_a_deleted_session_is_replaced_by_a_new_one_that_says_so(
    target: Target, client: Client, way: Way
) -> None:
    async with converse(target, way) as talk:
        first = (await talk.does("write_file", path="a", content="a"))["session"]
        client.call("DELETE", f"/sessions/{first}").done()
        ran = await talk.does("run_command", command="ls")
        assert ran["session"] != first
        assert f"{first} expired or was deleted, and its files are gone" in ran["note"]
        assert ran["stdout"] == ""
        assert "note" not in await talk.does("run_command", command="true")


@keeping
async def test_a_session_deleted_by_its_own_tool_is_replaced_by_a_new_one(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        first = (await talk.does("run_command", command="true"))["session"]
        await talk.does("delete_session", session=first)
        assert (await talk.does("run_command", command="true"))["session"] != first
        said = await talk.is_refused("run_command", command="true", session=first)
        assert said.startswith("session_not_found: ")


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_call_wakes_the_session_and_finds_its_files(target: Target, client: Client, depth: str) -> None:
    async with converse(target, ("http", OLDER)) as talk:
        first = (await talk.does("write_file", path="a", content="kept"))["session"]
        client.call("POST", f"/sessions/{first}/sleep", json_body={"depth": depth}).done()
        ran = await talk.does("run_command", command="cat a")
        assert (ran["stdout"], ran["session"], "note" in ran) == ("kept", first, False)


async def test_two_conversations_of_one_key_have_separate_sessions(target: Target) -> None:
    async with converse(target, ("http", OLDER)) as one, converse(target, ("http", OLDER)) as other:
        mine = await one.does("write_file", path="secret", content="mine")
        theirs = await other.does("list_files")
        assert mine["session"] != theirs["session"]
        assert theirs["files"] == []
        asked = await other.does("list_files", session=mine["session"])  # both have the same key
        assert [entry["path"] for entry in asked["files"]] == ["secret"]


async def test_without_a_conversation_each_call_creates_a_session_until_one_is_named(target: Target) -> None:
    async with converse(target, ("http", NEWEST)) as talk:
        talk.keeps = True  # the client does not send the session back
        first = await talk.does("write_file", path="a", content="a")
        second = await talk.does("list_files")
        assert first["session"] != second["session"]
        assert second["files"] == []
        for made in (first, second):
            assert made["note"] == "This session is new. Pass its id as `session` from now on."
        gone_on = await talk.does("list_files", session=first["session"])
        assert gone_on["session"] == first["session"]
        assert [entry["path"] for entry in gone_on["files"]] == ["a"]
        assert "note" not in gone_on


async def test_knowing_a_conversations_id_gives_another_key_no_access(target: Target, server: Server) -> None:
    stranger = server.cli("keys", "create", "--plan", "enterprise")
    async with httpx2.AsyncClient() as http:
        mine = await OlderClient.connect(http, target.mcp_url, target.key)
        session = (await mine.does("write_file", path="a", content="secret"))["session"]
        try:
            for method in ("POST", "GET", "DELETE"):
                headers = {**mine.headers, **bearer(stranger)}
                refused = await http.request(method, target.mcp_url, headers=headers, json=mine.request("tools/list"))
                assert refused.status_code == 404, method
            assert (await mine.does("read_file", path="a"))["content"] == "secret"
        finally:
            await mine.does("delete_session", session=session)


async def test_a_session_of_another_account_is_not_found(target: Target, server: Server) -> None:
    stranger = Target(target.url, target.mcp_url, server.cli("keys", "create", "--plan", "paid"))
    async with converse(target, ("http", NEWEST)) as one, converse(stranger, ("http", NEWEST)) as other:
        session = (await one.does("write_file", path="a", content="secret"))["session"]
        said = await other.is_refused("read_file", path="a", session=session)
        assert re.match("session_not_found: ", said)
        assert (await other.does("list_sessions"))["sessions"] == []
