"""`buntime mcp` on the wire: older revisions, keys, hosts, and the content of stdout."""

import asyncio
import json
import signal as signals
import socket
import subprocess
import time
from typing import Any

import httpx2
import pytest

from tests.acceptance.server import BUNTIME, Server
from tests.clients.assistant import (
    NEWEST,
    OLDER,
    PATIENCE,
    WAYS,
    Target,
    Way,
    bearer,
    converse,
    environment,
    serve_mcp,
)
from tests.clients.older_client import OlderClient, answered, hello

pytestmark = pytest.mark.sandbox

OLDER_REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port
ACCEPTED = {"Accept": "application/json, text/event-stream"}
MOST_OPEN = 100  # open conversations per key


def stdio(target: Target, *messages: dict[str, Any] | str, **settings: str) -> list[dict[str, Any]]:
    """Sends these messages to `buntime mcp`. Returns the lines that it prints before its stdin closes."""
    with subprocess.Popen(
        [str(BUNTIME), "mcp"],
        env=environment(target, **settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        try:
            for message in messages:
                line = message if isinstance(message, str) else json.dumps(message)
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()
                if isinstance(message, dict) and "id" in message:
                    while "id" not in (said := json.loads(process.stdout.readline())) or said["id"] != message["id"]:
                        lines.append(said)
                    lines.append(said)
            process.stdin.close()
            lines += [json.loads(line) for line in process.stdout.read().splitlines()]
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    return lines


def call(number: int, tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


BEGUN = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@pytest.mark.parametrize("revision", OLDER_REVISIONS)
def test_older_protocol_revisions_work_over_stdio(target: Target, revision: str) -> None:
    code = call(1, "execute_code", code="console.log(6 * 7)")
    begun, ran = stdio(target, hello(revision), BEGUN, code)
    assert begun["result"]["protocolVersion"] == revision
    assert begun["result"]["serverInfo"]["name"] == "buntime"
    assert "session" in begun["result"]["instructions"]
    assert "42" in ran["result"]["content"][0]["text"]
    stdio(target, hello(revision), BEGUN, call(2, "delete_session", session=_session(ran)))


@pytest.mark.parametrize("revision", OLDER_REVISIONS)
async def test_older_protocol_revisions_work_over_http(target: Target, revision: str) -> None:
    async with httpx2.AsyncClient() as http:
        older = await OlderClient.connect(http, target.mcp_url, target.key, revision)
        tools = answered(await older.sends(older.request("tools/list")))["result"]["tools"]
        assert "execute_code" in {tool["name"] for tool in tools}
        first = await older.does("execute_code", code="console.log(6 * 7)")
        again = await older.does("run_command", command="true")
        await older.does("delete_session", session=first["session"])
        assert (first["stdout"], again["session"]) == ("42\n", first["session"])


def test_stdout_carries_only_json_rpc_whatever_goes_wrong(target: Target) -> None:
    loud = {"BUNTIME_LOG_LEVEL": "DEBUG", "PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always"}
    said = stdio(
        target,
        hello("2025-06-18"),
        BEGUN,
        "this is no JSON",
        '{"jsonrpc": "2.0"}',
        call(1, "run_command", command="for i in 1 2 3; do echo $i; sleep 0.7; done; kill -9 $$"),
        call(2, "no_such_tool"),
        call(3, "execute_code", code=1),
        call(4, "execute_code"),
        **loud,
    )
    assert all(line["jsonrpc"] == "2.0" for line in said)
    assert {line["id"] for line in said if line.get("id") is not None} == {0, 1, 2, 3, 4}
    assert "notifications/progress" in {line.get("method") for line in said}
    ran = next(line for line in said if line.get("id") == 1)
    assert ran["result"]["structuredContent"]["exitCode"] != 0
    stdio(target, hello("2025-06-18"), BEGUN, call(1, "delete_session", session=_session(ran)))


def test_a_server_that_does_not_answer_is_reported_in_json_rpc_too(target: Target) -> None:
    said = stdio(
        target,
        hello("2025-06-18"),
        BEGUN,
        call(1, "execute_code", code="1"),
        BUNTIME_URL=NOWHERE,
        BUNTIME_LOG_LEVEL="DEBUG",
    )
    result = said[-1]["result"]
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith("connection_failed: ")
    assert "start it or set BUNTIME_URL" in result["content"][0]["text"]


def _session(answer: dict[str, Any]) -> str:
    return str(answer["result"]["structuredContent"]["session"])


# --- keys ---


@pytest.mark.parametrize("way", [way for way in WAYS if way != ("http", OLDER)], ids="-".join)
async def test_a_wrong_key_is_an_error_that_says_who_can_fix_it(target: Target, way: Way) -> None:
    """A conversation over HTTP is refused earlier; another test covers it."""
    wrong = Target(target.url, target.mcp_url, "btk_" + "0" * 34)
    async with converse(wrong, way) as talk:
        assert (await talk.client.list_tools()).tools
        said = await talk.is_refused("execute_code", code="1")
        assert said.startswith("unauthorized: ")
        assert "The user must provide a valid key" in said


async def test_an_account_on_the_smallest_plan_is_served_and_told_its_limits(target: Target, server: Server) -> None:
    small = Target(target.url, target.mcp_url, server.cli("keys", "create", "--plan", "free"))
    async with converse(small, ("stdio", NEWEST)) as talk:
        assert (await talk.does("execute_code", code="console.log(1)"))["stdout"] == "1\n"
        said = await talk.is_refused("run_command", command="true", timeout=60)
        assert said.startswith("invalid_request: timeout must be 1 to 30 seconds on the free plan")
        for _ in range(9):
            await talk.does("new_session")
        said = await talk.is_refused("new_session")
        assert said.startswith("session_limit_exceeded: ")
        assert "list_sessions, delete_session" in said


def test_over_stdio_it_does_not_start_without_a_key(target: Target) -> None:
    started = subprocess.run(
        [str(BUNTIME), "mcp"],
        env=environment(target, BUNTIME_API_KEY=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (started.returncode, started.stdout) == (1, "")
    assert started.stderr.startswith("buntime: There is no API key. Set BUNTIME_API_KEY")


def test_the_key_cannot_be_shared_beyond_this_machine(target: Target) -> None:
    started = subprocess.run(
        [str(BUNTIME), "mcp", "--http", "--share-key", "--host", "0.0.0.0"],
        env=environment(target),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert started.returncode == 2
    assert "--share-key" in started.stderr


def test_over_http_it_prints_its_address_on_stderr(target: Target) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(BUNTIME), "mcp", "--http", "--port", str(port), "--ttl", "6h"]
    with subprocess.Popen(command, env=environment(target), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"buntime: MCP at http://127.0.0.1:{port}/mcp\n"
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        finally:
            process.terminate()


@pytest.mark.parametrize(("ttl", "why"), [("4m", "at least 300 seconds"), ("soon", "is not a span of time")])
def test_a_lifetime_that_is_too_short_or_no_time_is_refused(target: Target, ttl: str, why: str) -> None:
    command = [str(BUNTIME), "mcp", "--ttl", ttl]
    refused = subprocess.run(
        command, env=environment(target), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert why in " ".join(refused.stderr.split())


@pytest.mark.parametrize("given", ["", "Bearer", "Basic YTpi", "btk_0"])
async def test_over_http_a_request_without_a_key_is_rejected_at_once(target: Target, given: str) -> None:
    async with httpx2.AsyncClient() as http:
        headers = {"Authorization": given} if given else {}
        refused = await http.post(target.mcp_url, headers=headers, json=hello("2025-06-18"))
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer btk_" in refused.text


async def test_over_http_an_unknown_key_opens_no_conversation(target: Target) -> None:
    async with httpx2.AsyncClient(headers=ACCEPTED) as http:
        for revision in ("2025-06-18", None):
            about = {} if revision is None else {"Mcp-Protocol-Version": revision}
            headers = {**bearer("btk_" + "0" * 34), **about}
            refused = await http.post(target.mcp_url, headers=headers, json=hello("2025-06-18"))
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "mcp-session-id" not in refused.headers
            assert refused.text.startswith("unauthorized: ")
            assert "The user must provide a valid key" in refused.text


async def test_over_http_a_server_that_does_not_answer_opens_no_conversation(target: Target) -> None:
    with serve_mcp(NOWHERE) as alone:
        async with httpx2.AsyncClient(headers={**ACCEPTED, **bearer(target.key)}) as http:
            refused = await http.post(alone, json=hello("2025-06-18"))
            assert refused.status_code == 503
            assert refused.text.startswith("connection_failed: ")
            assert "mcp-session-id" not in refused.headers


async def test_over_http_a_rate_limited_key_still_counts_as_known(target: Target, server: Server) -> None:
    key = server.cli("keys", "create", "--plan", "free")
    client = server.client(key)
    while client.call("GET", "/sessions").status != 429:
        pass
    async with httpx2.AsyncClient(headers={**ACCEPTED, **bearer(key)}) as http:
        assert (await http.post(target.mcp_url, json=hello("2025-06-18"))).status_code == 200


async def test_over_http_the_oldest_idle_conversation_of_a_key_ends_if_it_has_many(
    target: Target, server: Server
) -> None:
    key = server.cli("keys", "create", "--plan", "paid")
    async with httpx2.AsyncClient() as http:
        theirs = await OlderClient.connect(http, target.mcp_url, target.key)
        first = await OlderClient.connect(http, target.mcp_url, key)
        second = await OlderClient.connect(http, target.mcp_url, key)
        async with http.stream("GET", target.mcp_url, headers=first.headers, timeout=PATIENCE) as listening:
            assert listening.status_code == 200  # an open stream counts as use
            others = [await OlderClient.connect(http, target.mcp_url, key) for _ in range(MOST_OPEN - 1)]
            statuses = [(await one.sends(one.request("ping"))).status_code for one in (first, second, *others, theirs)]
        assert statuses == [200, 404, *([200] * (MOST_OPEN - 1)), 200]


@pytest.mark.parametrize("mode", [OLDER, NEWEST])
async def test_over_http_others_cannot_use_the_key_of_the_process_unless_it_is_shared(
    target: Target, mode: str
) -> None:
    keyless = Target(target.url, target.mcp_url, "")
    with serve_mcp(target.url, BUNTIME_API_KEY=target.key) as own:
        async with httpx2.AsyncClient() as http:
            refused = await http.post(own, json=hello("2025-06-18"))
            assert refused.status_code == 401
    with serve_mcp(target.url, "--share-key", BUNTIME_API_KEY=target.key) as shared:
        async with converse(Target(keyless.url, shared, ""), ("http", mode)) as talk:
            ran = await talk.does("run_command", command="echo ours")
            assert ran["stdout"] == "ours\n"
            await talk.does("delete_session", session=ran["session"])


# --- access from elsewhere ---


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "rebound.example.com", 421),
        ("Host", "127.0.0.1.example.com:8090", 421),
        ("Origin", "https://example.com", 403),
        ("Origin", "null", 403),
    ],
)
async def test_a_web_page_under_another_name_is_refused(target: Target, header: str, value: str, status: int) -> None:
    async with httpx2.AsyncClient() as http:
        accepted = {"Accept": "application/json, text/event-stream", **bearer(target.key)}
        refused = await http.post(target.mcp_url, headers={**accepted, header: value}, json=hello("2025-06-18"))
        assert refused.status_code == status, refused.text
        assert (await http.post(target.mcp_url, headers=accepted, json=hello("2025-06-18"))).status_code == 200


async def test_an_allowed_name_is_served(target: Target) -> None:
    with serve_mcp(target.url, "--allow-host", "mcp.example.com") as named:
        async with httpx2.AsyncClient() as http:
            headers = {"Accept": "application/json, text/event-stream", **bearer(target.key)}
            for name in ("mcp.example.com", "mcp.example.com:443"):
                reply = await http.post(named, headers={**headers, "Host": name}, json=hello("2025-06-18"))
                assert reply.status_code == 200, reply.text


async def test_an_older_clients_run_survives_a_lost_connection_but_not_the_end_of_its_conversation(
    target: Target, server: Server
) -> None:
    async with httpx2.AsyncClient() as http:
        older = await OlderClient.connect(http, target.mcp_url, target.key)
        session = (await older.does("run_command", command="true"))["session"]
        command = "sleep 3; touch went-on; sleep 600"
        long = older.request("tools/call", name="run_command", arguments={"command": command, "timeout": 700})
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(target.mcp_url, headers=older.headers, json=long, timeout=2.0)
        await asyncio.sleep(3)
        assert "went-on" in (await older.does("run_command", command="ls"))["stdout"]
        await http.request("DELETE", target.mcp_url, headers=older.headers)
    _ends(server, target, session)


async def test_a_lost_connection_of_the_newest_revision_ends_its_run(target: Target, server: Server) -> None:
    """In this revision, only the connection shows that the client still waits."""
    async with converse(target, ("http", NEWEST)) as talk:
        await talk.does("run_command", command="true")
        assert talk.session is not None
        async with asyncio.TaskGroup() as group:
            call = group.create_task(talk.calls("run_command", command="sleep 600", timeout=700))
            await asyncio.sleep(2)
            call.cancel()
        await asyncio.to_thread(_ends, server, target, talk.session)


@pytest.mark.parametrize("signal", [None, "TERM", "KILL"])
def test_a_run_ends_with_the_process_that_a_client_started(target: Target, server: Server, signal: str | None) -> None:
    """Without a `signal`, the process's stdin closes."""
    with subprocess.Popen(
        [str(BUNTIME), "mcp"], env=environment(target), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            begun = (hello("2025-06-18"), BEGUN, call(1, "run_command", command="true"))
            long = call(2, "run_command", command="echo it begins; sleep 600", timeout=700)
            process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in (*begun, long)))
            process.stdin.flush()
            said = [json.loads(process.stdout.readline())]
            while said[-1].get("params", {}).get("message") != "it begins":
                said.append(json.loads(process.stdout.readline()))
            if signal is None:
                process.stdin.close()
            else:
                process.send_signal(getattr(signals, f"SIG{signal}"))
            process.wait(PATIENCE)
        finally:
            process.kill()
    _ends(server, target, _session(next(line for line in said if line.get("id") == 1)))


def _ends(server: Server, target: Target, session: str) -> None:
    """Asserts that the session's `sleep` ends, and deletes the session."""
    client = server.client(target.key)
    try:
        for _ in range(100):
            names = client.execute(session, command="cat /proc/[0-9]*/comm 2>/dev/null; true").done()["stdout"]
            if "sleep" not in names.split():
                return
            time.sleep(0.2)
        pytest.fail("it goes on")
    finally:
        client.call("DELETE", f"/sessions/{session}").done()
