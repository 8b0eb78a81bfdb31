"""What the tools for processes say about output, readiness and ends. The tests use the SDK's fake server."""

import re

import httpx2
import pytest
from buntime_sdk import AsyncBuntime, ResourceLimitExceeded
from buntime_sdk.testing import AsyncFakeBuntime, FakeResult

from tests.unit.test_mcp_arguments import said, talking

WRITE = re.compile("write")
SEQUENCE = "".join(f"{number}\n" for number in range(1, 100_001))


def writing(whole: str, *, running: bool = True) -> AsyncFakeBuntime:
    return AsyncFakeBuntime().on_start(WRITE, FakeResult(whole, running=running))


# --- output ---


async def test_a_start_shows_the_end_of_long_output_and_says_how_much_it_left_out() -> None:
    async with talking(writing(SEQUENCE, running=False)) as talk:
        begun = await talk.does("start_process", command="write", wait_for_output="^99999$")
        assert begun["output"].startswith("1\n2\n")
        assert begun["output"].endswith("\n99999\n100000\n")
        (gap,) = re.findall(r"\n… (\d+) characters left out: process_logs", begun["output"])
        head, _, tail = re.split(r"\n(… \d+ characters left out: [^\n]*)\n", begun["output"], maxsplit=1)
        assert len(head) + int(gap) + len(tail) == len(SEQUENCE)


@pytest.mark.parametrize(
    "whole",
    [
        SEQUENCE,
        "x" * 70_000 + "END",
        "one\n" + "é" * 40_000 + "\ntwo\n",
        "ab " * 5_333 + "c",  # exactly one part
        "",
    ],
    ids=["lines", "one long write", "two bytes each", "one part", "nothing"],
)
async def test_parts_of_a_log_leave_nothing_out_and_repeat_nothing(whole: str) -> None:
    async with talking(writing(whole)) as talk:
        process = (await talk.does("start_process", command="write"))["process"]["process"]
        read, at = "", {"cursor": 0}
        while True:
            part = await talk.does("process_logs", process=process, **at)
            assert len(part["output"]) <= 16_000
            read += part["output"]
            at = {"cursor": part["cursor"], **({"skip": part["skip"]} if "skip" in part else {})}
            if not part["output"]:
                break
            names = f"continue with cursor {part['cursor']}" + (f" and skip {part['skip']}" if "skip" in part else "")
            assert names in talk.text
        assert read == whole


# --- readiness ---


@pytest.mark.parametrize(
    ("awaited", "told", "sentence"),
    [
        ({"wait_for_port": 9000}, {"ready": True}, "proc_a is running and listens on port 9000."),
        (
            {"wait_for_port": 9000, "wait_seconds": 1},
            {"ready": False},
            "proc_a still runs, but nothing listened on port 9000 within 1 s.",
        ),
        (
            {"wait_for_output": "up", "wait_seconds": 2},
            {"ready": False},
            "proc_a still runs, but no line of output matched within 2 s.",
        ),
        (
            {"wait_for_output": "up"},
            {"ready": True, "status": "exited", "exitCode": 0},
            "proc_a printed the line that you waited for, and has ended (exit code 0).",
        ),
        (
            {"wait_for_port": 9000},
            {"ready": False, "status": "exited", "exitCode": 3},
            "proc_a has ended (exit code 3) before anything listened on port 9000.",
        ),
        (
            {"wait_for_output": "up"},
            {"ready": False, "status": "exited", "exitCode": 3},
            "proc_a has ended (exit code 3) before a line of output matched.",
        ),
        ({}, {"status": "exited", "exitCode": 3}, "proc_a has ended (exit code 3)."),
        ({}, {}, "proc_a is running."),
    ],
)
async def test_a_start_says_in_one_sentence_what_became_of_the_process(
    awaited: dict[str, object], told: dict[str, object], sentence: str
) -> None:
    async with talking(answering(told)) as talk:
        begun = await talk.does("start_process", command="serve", **awaited)
        assert talk.text.startswith(f"{sentence}\n(no output so far)")
        assert begun.get("ready") == told.get("ready")


async def test_a_start_says_that_the_process_ended_while_its_output_was_read() -> None:
    ended = {"status": "exited", "exitCode": 1}
    async with talking(answering({}, later=ended)) as talk:
        begun = await talk.does("start_process", command="serve")
        assert talk.text.startswith("proc_a has ended (exit code 1).\n")
        assert begun["process"]["status"] == "exited"


def answering(told: dict[str, object], later: dict[str, object] | None = None) -> AsyncBuntime:
    """A server whose processes are as `told`, and then as told `later`, and print nothing."""
    session = {"sessionId": "ses_a", "expiresAt": "2099-01-01T00:00:00Z", "createdAt": "2026-01-01T00:00:00Z"}
    running = {"processId": "proc_a", "status": "running", "exitCode": None, "reason": None}
    process = {**running, "command": "serve", "name": None, **told}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        now = process if request.url.path == "/processes/start" else {**process, **(later or {})}
        if request.url.path == "/processes/logs":
            return httpx2.Response(200, json={**now, "entries": [], "cursor": 0, "end": 0, "dropped": 0})
        return httpx2.Response(200, json=now if request.url.path.startswith("/processes/") else session)

    return AsyncBuntime("btk_a", "http://near.invalid", transport=httpx2.MockTransport(answer))


async def test_a_start_waits_for_a_port_or_for_output_but_not_for_both() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        both = await said(talk, "start_process", command="serve", wait_for_port=80, wait_for_output="up")
        assert both == "invalid_request: start_process takes wait_for_port or wait_for_output, not both."


@pytest.mark.parametrize(
    ("resource", "tool", "advice"),
    [
        ("processes", "start_process", "End a process first: list_processes, stop_process."),
        ("contexts", "run_in_context", "Pass the `context_id` of an earlier result, or use new_session."),
        ("open streams", "run_command", "Wait until another call has ended."),
        ("terminals", "start_process", ""),
    ],
)
async def test_a_refusal_for_a_limit_says_how_to_make_room_for_that_resource(
    resource: str, tool: str, advice: str
) -> None:
    full = ResourceLimitExceeded("Full.", code="resource_limit_exceeded", details={"resource": resource})
    near = AsyncFakeBuntime(max_retries=0)
    for path in ("/processes/start", "/contexts/create", "/execute"):
        near.fail("POST", path, full)
    program = {"code": "1"} if tool == "run_in_context" else {"command": "serve"}
    async with talking(near) as talk:
        told = await said(talk, tool, **program)
        assert told.startswith(f"resource_limit_exceeded: Full. {advice}".rstrip())
        assert ("stop_process" in told) == (resource == "processes")


# --- environments, ends and input ---


async def test_a_process_starts_in_a_folder_and_with_variables() -> None:
    near = AsyncFakeBuntime().on_start("where", lambda run: f"{run.working_dir} {run.env['MODE']}")
    async with talking(near) as talk:
        begun = await talk.does("start_process", command="where", working_dir="app", env={"MODE": "test"})
        assert begun["output"] == "app test"


async def test_a_stop_says_how_the_process_ended() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        process = (await talk.does("start_process", command="serve"))["process"]["process"]
        stopped = await talk.does("stop_process", process=process)
        assert talk.text.startswith(f"{process} has ended, exit code 143.")
        assert (stopped["process"]["status"], stopped["process"]["exitCode"]) == ("exited", 143)


async def test_a_stop_says_that_the_process_still_runs() -> None:
    async with talking(answering({})) as talk:
        stopped = await talk.does("stop_process", process="proc_a")
        assert talk.text.startswith("Sent SIGTERM to proc_a, which still runs.")
        assert stopped["process"]["status"] == "running"


async def test_only_results_with_output_have_a_field_for_it() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        process = (await talk.does("start_process", command="serve"))["process"]["process"]
        assert "output" not in await talk.does("send_input", process=process, text="hello\n")
        assert "output" not in await talk.does("stop_process", process=process)
