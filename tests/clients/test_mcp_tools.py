"""Every tool of `buntime mcp`, over both transports and with the older and the newest protocol."""

import asyncio
import functools
import re
import time
from collections.abc import Callable

import anyio
import pytest
from mcp.types import ImageContent

from tests.acceptance.client import Client
from tests.clients.assistant import NEWEST, OLDER, PATIENCE, WAYS, Conversation, Target, Way, converse

pytestmark = pytest.mark.sandbox

SOON = 20.0  # seconds within which a run must begin or end

every_way = pytest.mark.parametrize("way", WAYS, ids="-".join)
either_transport = pytest.mark.parametrize("way", [("stdio", NEWEST), ("http", OLDER)], ids="-".join)


@every_way
async def test_a_client_gets_the_schemas_and_hints_of_each_tool(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        assert talk.client.protocol_version == ("2025-11-25" if way[1] == OLDER else "2026-07-28")
        tools = (await talk.client.list_tools()).tools
        assert len(tools) == 24
        assert "ses_" in (talk.client.instructions or "")
        for tool in tools:
            assert tool.description, tool.name
            assert tool.title, tool.name
            assert tool.output_schema is not None, tool.name
            assert "context" not in tool.input_schema["properties"], tool.name
            may = tool.annotations
            assert may is not None, tool.name
            hints = (may.read_only_hint, may.destructive_hint, may.idempotent_hint, may.open_world_hint)
            assert None not in hints, tool.name
            assert not (may.read_only_hint and may.destructive_hint), tool.name


@every_way
async def test_every_tool_works(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        ran = await talk.does("execute_code", code="console.log(6 * 7); console.error('oh')")
        assert (ran["stdout"], ran["stderr"], ran["exitCode"], ran["timedOut"]) == ("42\n", "oh\n", 0, False)
        first = ran["session"]
        assert first.startswith("ses_")
        assert "new" in ran["note"]
        piped = await talk.does("run_command", command="tr a-z A-Z; exit 3", stdin="hello")
        assert (piped["stdout"], piped["exitCode"], piped["session"]) == ("HELLO", 3, first)
        assert "note" not in piped
        await _files(talk)
        await _contexts(talk)
        await _processes(talk)
        await _services(talk)
        await _snapshots(talk, first)
        await _sessions(talk, first)
        assert talk.called == {tool.name for tool in (await talk.client.list_tools()).tools}


async def _files(talk: Conversation) -> None:
    written = await talk.does("write_file", path="notes/a.txt", content="one\n")
    assert (written["path"], written["size"]) == ("notes/a.txt", 4)
    assert (await talk.does("write_file", path="notes/a.txt", content="two é\n", append=True))["size"] == 11
    assert (await talk.does("edit_file", path="notes/a.txt", old="one", new="three"))["size"] == 13
    assert "0 times" in await talk.is_refused("edit_file", path="notes/a.txt", old="one", new="1")
    assert (await talk.does("read_file", path="notes/a.txt"))["content"] == "three\ntwo é\n"
    numbered = await talk.does("read_file", path="notes/a.txt", start_line=2, line_numbers=True)
    assert numbered["content"] == "     2\ttwo é\n"
    part = await talk.does("read_file", path="notes/a.txt", limit=11)
    assert (part["content"], part["nextOffset"]) == ("three\ntwo ", 10)  # the part does not end within a character
    rest = await talk.does("read_file", path="notes/a.txt", offset=10)
    assert (rest["content"], "nextOffset" in rest) == ("é\n", False)
    listed = await talk.does("list_files", recursive=True)
    assert {("notes", "directory"), ("notes/a.txt", "file")} <= {(one["path"], one["type"]) for one in listed["files"]}
    found = await talk.does("search_files", query="^two", glob="**/*.txt")
    assert [(one["path"], one["line"], one["text"]) for one in found["matches"]] == [("notes/a.txt", 2, "two é")]


async def _contexts(talk: Conversation) -> None:
    begun = await talk.does("run_in_context", code="const x = 20; x + 1")
    assert begun["value"] == "21"
    more = await talk.does("run_in_context", code="x * 2")
    assert (more["value"], more["context"]) == ("40", begun["context"])
    thrown = await talk.does("run_in_context", code="throw new Error('no')", context_id=begun["context"])
    assert "no" in thrown["error"]


async def _processes(talk: Conversation) -> None:
    started = await talk.does("start_process", command="python3 -um http.server 8080", name="web", wait_for_port=8080)
    assert started["ready"] is True
    process = started["process"]["process"]
    preview = await talk.does("preview_url")
    assert preview["url"].startswith("http://ses-")
    assert preview["listening"] is True
    assert (await talk.does("process_logs", process="web"))["status"] == "running"
    with_token = await talk.does("preview_url", port=3000)
    assert (with_token["open"], with_token["listening"]) == (False, False)
    assert "bpt_" in with_token["url"]
    reader = (await talk.does("start_process", command="read line; echo got $line"))["process"]["process"]
    await talk.does("send_input", process=reader, text="that\n", close=True)
    logs = await _until_ended(talk, reader)
    assert (logs["output"], logs["exitCode"]) == ("got that\n", 0)
    assert (await talk.does("process_logs", process=reader, cursor=logs["cursor"]))["output"] == ""
    shown = {one["process"]: one["status"] for one in (await talk.does("list_processes"))["processes"]}
    assert shown[process] == "running"
    assert shown[reader] == "exited"
    await talk.does("stop_process", process=process)
    assert (await _until_ended(talk, process))["status"] != "running"


async def _services(talk: Conversation) -> None:
    declared = await talk.does("set_service", name="worker", command="exec sleep 1000", restart="on-failure")
    assert [one["name"] for one in declared["services"]] == ["worker"]
    deadline = time.monotonic() + PATIENCE
    while (shown := (await talk.does("list_services"))["services"][0])["state"] != "running":
        assert time.monotonic() < deadline, shown
        await asyncio.sleep(0.1)
    assert (await talk.does("set_service", name="worker", command=""))["services"] == []


async def _until_ended(talk: Conversation, process: str) -> dict[str, object]:
    deadline = time.monotonic() + PATIENCE
    while (logs := await talk.does("process_logs", process=process))["status"] == "running":
        assert time.monotonic() < deadline, logs
        await asyncio.sleep(0.1)
    return logs


async def _snapshots(talk: Conversation, first: str) -> None:
    await talk.does("write_file", path="kept.txt", content="one")
    taken = await talk.does("snapshot_session", name="first")
    assert (taken["session"], taken["name"], taken["size"] > 0) == (first, "first", True)
    await talk.does("write_file", path="kept.txt", content="two")
    forked = await talk.does("fork_session")
    assert (await talk.does("read_file", path="kept.txt", session=forked["fork"]))["content"] == "two"
    assert (await talk.does("delete_session", session=forked["fork"]))["state"] == "deleted"
    restored = await talk.does("restore_session", snapshot=taken["snapshot"], session=first)
    assert (restored["session"], restored["state"]) == (first, "active")
    assert (await talk.does("read_file", path="kept.txt"))["content"] == "one"
    listed = (await talk.does("list_snapshots"))["snapshots"]
    assert {one["name"] for one in listed if one["session"] == first} == {"first", "before-restore"}
    begun = await talk.does("new_session", snapshot=taken["snapshot"])
    assert (await talk.does("read_file", path="kept.txt", session=begun["session"]))["content"] == "one"
    assert "list_snapshots" in await talk.is_refused("restore_session", snapshot="snp_000000000000000000")
    await talk.does("delete_session", session=begun["session"])
    await talk.does("list_files", session=first)


async def _sessions(talk: Conversation, first: str) -> None:
    assert (await talk.does("sleep_session"))["state"] == "idle"
    second = await talk.does("new_session")
    assert second["session"] != first
    assert (await talk.does("list_files"))["session"] == second["session"]
    mine = {one["session"]: one["current"] for one in (await talk.does("list_sessions"))["sessions"]}
    assert set(mine) >= {first, second["session"]}
    assert mine[second["session"]] is talk.keeps
    assert mine[first] is False
    assert (await talk.does("delete_session", session=first))["state"] == "deleted"


@every_way
async def test_a_long_run_reports_progress(target: Target, way: Way) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async with converse(target, way) as talk:
        await talk.does("run_command", command="for i in 1 2 3; do echo line $i; sleep 1.2; done", progress=progress)
    assert len(told) >= 2
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
    assert {total for _, total, _ in told} == {30}
    assert next(message for _, _, message in told) == "line 1"


@every_way
async def test_a_call_that_is_cancelled_ends_its_run(target: Target, client: Client, way: Way) -> None:
    async with converse(target, way) as talk:
        await talk.does("run_command", command="true")
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(talk.calls, "run_command", command="sleep 600 & sleep 601", timeout=700))
            await _until(lambda: "sleep" in _names_of_processes(client, talk), "the run to begin")
            group.cancel_scope.cancel()
        await _until(lambda: "sleep" not in _names_of_processes(client, talk), "the run to end")
        assert (await talk.does("run_command", command="echo on"))["stdout"] == "on\n"


def _names_of_processes(client: Client, talk: Conversation) -> list[str]:
    assert talk.session is not None
    shown = client.execute(talk.session, command="cat /proc/[0-9]*/comm 2>/dev/null; true").done()
    return str(shown["stdout"]).split()


async def _until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        await asyncio.sleep(0.2)


@either_transport
async def test_long_output_is_cut_and_the_named_file_has_the_rest(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        ran = await talk.does("run_command", command="seq 1 20000; seq 1 9000 >&2; echo end")
        whole = "".join(f"{number}\n" for number in range(1, 20001)) + "end\n"
        assert len(ran["stdout"]) < 17_000
        assert ran["stdout"].startswith("1\n2\n3\n")
        assert ran["stdout"].endswith("20000\nend\n")
        assert f"read_file {ran['stdoutFile']}" in ran["stdout"]
        part = await talk.does("read_file", path=ran["stdoutFile"])
        read = part["content"]
        while "nextOffset" in part:
            part = await talk.does("read_file", path=ran["stdoutFile"], offset=part["nextOffset"])
            read += part["content"]
        assert read == whole
        assert (await talk.does("read_file", path=ran["stderrFile"]))["size"] == sum(
            len(f"{number}\n") for number in range(1, 9001)
        )


async def test_a_file_is_read_to_its_end_through_a_link_and_without_a_known_size(target: Target) -> None:
    async with converse(target, ("stdio", NEWEST)) as talk:
        await talk.does("run_command", command="seq 1 8000 > long.txt; ln -s long.txt link; ln -s /nowhere dangling")
        whole = "".join(f"{number}\n" for number in range(1, 8001))
        for path in ("long.txt", "link"):
            part = await talk.does("read_file", path=path)
            read = part["content"]
            while "nextOffset" in part:
                part = await talk.does("read_file", path=path, offset=part["nextOffset"])
                read += part["content"]
            assert (read, part["size"]) == (whole, len(whole)), path
            assert (await talk.does("read_file", path=path, offset=len(whole) + 9))["content"] == ""
        assert (await talk.does("read_file", path="long.txt", limit=4))["size"] == len(whole)
        assert "processor" in (await talk.does("read_file", path="/proc/cpuinfo"))["content"]
        assert (await talk.does("read_file", path="/proc/self/status", limit=4))["nextOffset"] == 4
        assert (await talk.is_refused("read_file", path="dangling")).startswith("file_not_found: ")
        assert (await talk.is_refused("read_file", path=".")).startswith("file_conflict: ")


async def test_one_call_shows_the_end_of_a_long_log_and_its_cursor_leads_on(target: Target) -> None:
    command = "seq 1 200000; echo LAST; read line; echo $line; exec sleep 600"
    async with converse(target, ("stdio", NEWEST)) as talk:
        begun = await talk.does("start_process", command=command, wait_for_output="^LAST$")
        process = begun["process"]["process"]
        logs = await talk.does("process_logs", process=process)
        assert logs["output"].startswith("1\n2\n3\n")
        assert logs["output"].endswith("200000\nLAST\n")
        assert len(logs["output"]) < 17_000
        (path,) = set(re.findall(r"read_file (\S+)", logs["output"]))
        assert (await talk.does("read_file", path=path, offset=logs["cursor"] - 5))["content"] == "LAST\n"
        assert (await talk.does("process_logs", process=process, cursor=logs["cursor"]))["output"] == ""
        await talk.does("send_input", process=process, text="more\n")
        deadline = time.monotonic() + SOON
        while not (after := await talk.does("process_logs", process=process, cursor=logs["cursor"]))["output"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert after["output"] == "more\n"


async def test_the_parts_of_a_log_with_large_writes_leave_nothing_out(target: Target) -> None:
    whole = "".join(f"{number}\n" for number in range(1, 100_001))
    async with converse(target, ("stdio", NEWEST)) as talk:
        begun = await talk.does("start_process", command="seq 1 100000", wait_for_output="^99999$")
        assert begun["output"].endswith("\n99999\n100000\n")
        read, at = "", {"cursor": 0}
        while (part := await talk.does("process_logs", process=begun["process"]["process"], **at))["output"]:
            assert len(part["output"]) <= 16_000
            read += part["output"]
            at = {name: part[name] for name in ("cursor", "skip") if name in part}
        assert read == whole


async def test_a_process_that_never_stops_writing_does_not_block_the_call(target: Target) -> None:
    async with converse(target, ("stdio", NEWEST)) as talk:
        process = (await talk.does("start_process", command="yes"))["process"]["process"]
        logs = await talk.does("process_logs", process=process)
        assert logs["output"].startswith("y\n")
        assert (await talk.does("process_logs", process=process))["cursor"] > logs["cursor"] > 1 << 20
        await talk.does("stop_process", process=process)


@every_way
async def test_a_start_that_waits_reports_progress(target: Target, way: Way) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    command = "sleep 3; exec python3 -m http.server 8080"
    async with converse(target, way) as talk:
        begun = await talk.does(
            "start_process", progress=progress, command=command, wait_for_port=8080, wait_seconds=45
        )
        assert begun["ready"] is True
    assert len(told) >= 2
    assert {(total, message) for _, total, message in told} == {(45, "waiting for port 8080")}


async def test_the_result_of_a_run_that_displays_a_lot_is_bounded(target: Target) -> None:
    async with converse(target, ("stdio", NEWEST)) as talk:
        code = "for (let n = 0; n < 3000; n++) display(n + ' ' + 'x'.repeat(2000))"
        result = await talk.calls("run_in_context", code=code)
        assert not result.is_error
        assert len(result.model_dump_json()) < 100_000
        path = (result.structured_content or {})["displayedFile"]
        assert "0 xxx" in (await talk.does("read_file", path=path, limit=100))["content"]


@either_transport
async def test_a_run_that_times_out_shows_its_output(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        ran = await talk.does("run_command", command="echo begun; sleep 60", timeout=1)
        assert (ran["stdout"], ran["timedOut"]) == ("begun\n", True)


async def test_a_call_without_a_timeout_uses_the_sessions_timeout(target: Target, client: Client) -> None:
    brief = client.open(resourceLimits={"cpu": 1, "timeout": 2})
    async with converse(target, ("stdio", NEWEST)) as talk:
        ran = await talk.does("run_command", command="echo begun; sleep 20", session=brief.id)
        assert (ran["stdout"], ran["timedOut"]) == ("begun\n", True)
        assert not (await talk.does("run_command", command="sleep 3", timeout=10))["timedOut"]


async def test_simultaneous_first_calls_for_variables_create_one_context(target: Target) -> None:
    async with converse(target, ("stdio", NEWEST)) as talk:
        await talk.does("run_command", command="true")
        names = ("a", "b", "c")
        made = await asyncio.gather(*(talk.does("run_in_context", code=f"var {name} = 14") for name in names))
        assert len({one["context"] for one in made}) == 1
        assert (await talk.does("run_in_context", code="a + b + c"))["value"] == "42"


@either_transport
async def test_an_error_has_its_code_and_a_remedy(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        assert re.match("file_not_found: .*list_files", await talk.is_refused("read_file", path="nope"))
        await talk.does("run_command", command="printf '\\377\\376' > bytes")
        assert "not text" in await talk.is_refused("read_file", path="bytes")
        assert "not text" in await talk.is_refused("edit_file", path="bytes", old="a", new="b")
        gone = "proc_000000000000000000"
        assert re.match("process_not_found: .*list_processes", await talk.is_refused("process_logs", process=gone))
        assert re.match(
            "session_not_found: .*omit `session`",
            await talk.is_refused("run_command", command="true", session="ses_000000000000000000"),
        )
        assert re.match(
            "context_not_found: .*context_id",
            await talk.is_refused("run_in_context", code="1", context_id="ctx_000000000000000000"),
        )
        assert re.match("invalid_request: ", await talk.is_refused("search_files", query="("))
        assert "timeout" in await talk.is_refused("run_command", command="true", timeout=0)
        assert (await talk.does("run_command", command="echo on"))["stdout"] == "on\n"


async def test_a_picture_shown_in_a_context_is_in_the_result(target: Target) -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    code = f"({{ [Symbol.for('Jupyter.display')]: () => ({{ 'image/png': '{png}' }}) }})"
    async with converse(target, ("stdio", NEWEST)) as talk:
        shown = await talk.calls("run_in_context", code=code)
        assert [part.data for part in shown.content if isinstance(part, ImageContent)] == [png]


async def test_variables_are_gone_after_deep_sleep_and_the_result_says_so(target: Target) -> None:
    async with converse(target, ("stdio", NEWEST)) as talk:
        begun = await talk.does("run_in_context", code="let x = 1; x")
        await talk.does("sleep_session", depth="deep-sleep")
        lost = await talk.is_refused("run_in_context", code="x")
        assert re.match("context_(lost|not_found): .*without `context_id`", lost)
        again = await talk.does("run_in_context", code="typeof x")
        assert again["context"] != begun["context"]
        assert again["value"] == "undefined"
