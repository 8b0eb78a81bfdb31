"""Accounts, keys and plans: changes from the command line take effect at once in the running server."""

import re
import time
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import BUNTIME, Server
from tests.clients.user import Terminal
from tests.waiting import until

pytestmark = pytest.mark.sandbox


def _account(server: Server, plan: str, *settings: str) -> tuple[str, Client]:
    account = server.cli("accounts", "create", "--plan", plan, *(f"--set={setting}" for setting in settings))
    return account, server.client(server.cli("keys", "create", "--account", account))


def test_a_new_key_works_at_once_and_a_revoked_one_no_more(server: Server) -> None:
    key = server.cli("keys", "create")
    assert re.fullmatch(r"btk_[0-9A-Za-z]{38}", key)
    client = server.client(key)
    session = client.open()
    server.cli("keys", "revoke", key)
    refused = client.call("GET", "/sessions")
    refused.refused(401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert key not in server.cli("keys", "list")
    account = re.search(rf"{key[:8]}…\s+key_\w+\s+(acc_\w+)", server.cli("keys", "list"))
    assert account
    second = Session(server.client(server.cli("keys", "create", "--account", account[1])), session.id)
    second.delete().done()


def test_a_key_does_what_its_scopes_say_until_it_expires(server: Server) -> None:
    account, client = _account(server, "paid")
    session = client.open()
    narrow = server.client(
        server.cli("keys", "create", "--account", account, "--scope", "sessions:read", "--expires", "4s")
    )
    assert narrow.call("GET", f"/sessions/{session.id}").done()["sessionId"] == session.id
    refused = narrow.call("POST", "/execute", json_body={"sessionId": session.id, "command": "true"})
    assert refused.refused(403, "forbidden") == {"scope": "sessions:write"}
    until(lambda: narrow.call("GET", "/sessions").status == 401, "the key expires")
    session.delete().done()


def test_an_account_makes_and_revokes_keys_by_the_api(server: Server) -> None:
    _, client = _account(server, "paid")
    made = client.call("POST", "/keys/create", json_body={"scopes": ["account:read"]}).done()
    other = server.client(made["key"])
    assert other.call("GET", "/account").done()["key"]["scopes"] == ["account:read"]
    other.call("POST", "/keys/create").refused(403, "forbidden")
    assert made["key"] not in server.said()
    client.call("DELETE", f"/keys/{made['keyId']}").done()
    other.call("GET", "/account").refused(401, "unauthorized")


def test_only_a_key_of_the_operator_reads_the_metrics_by_the_api(server: Server) -> None:
    account, client = _account(server, "paid")
    assert client.call("GET", "/metrics").refused(403, "forbidden") == {"scope": "operator"}
    operator = server.client(server.cli("keys", "create", "--account", account, "--scope", "operator"))
    shown = operator.call("GET", "/metrics")
    assert (shown.status, b"buntime_sessions{" in shown.body) == (200, True)


def test_a_suspended_account_is_refused_and_keeps_its_sessions(server: Server) -> None:
    account, client = _account(server, "paid")
    session = client.open()
    session.write("kept", "kept").done()
    server.cli("accounts", "suspend", account)
    client.call("GET", "/sessions").refused(403, "forbidden")
    session.execute(command="true").refused(403, "forbidden")
    client.create().refused(403, "forbidden")
    server.cli("accounts", "resume", account)
    assert session.text("kept") == "kept"
    session.delete().done()


def test_a_deleted_account_is_unknown_and_its_sessions_go(server: Server) -> None:
    account, client = _account(server, "paid")
    sandboxes = [client.open() for _ in range(2)]
    owners = {file.parent.name for file in _records(server) if any(s.id in file.read_text() for s in sandboxes)}
    assert len(owners) == 2
    server.cli("accounts", "delete", account, "--yes")
    client.call("GET", "/sessions").refused(401, "unauthorized")
    deadline = time.monotonic() + 60
    while owners & {file.parent.name for file in _records(server)}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.run_cli("accounts", "resume", account).returncode == 1


def test_the_command_line_refuses_with_one_sentence(server: Server) -> None:
    for arguments in (
        ["accounts", "create", "--plan", "golden"],
        ["accounts", "suspend", "acc_nobody"],
        ["keys", "create", "--account", "acc_nobody"],
        ["keys", "revoke", "key_nothing"],
        ["accounts", "create", "--plan", "paid", "--set", "sesions=5"],
    ):
        done = server.run_cli(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith("buntime: ")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic abc", "btk_x", "Bearer btk_" + "a" * 38, "Bearer nonsense", "Bearer b\xfctk"],
)
def test_a_call_without_a_valid_key_is_refused(server: Server, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    for method, path in (("GET", "/sessions"), ("POST", "/execute"), ("POST", "/sessions/create")):
        refused = server.client(None).call(method, path, headers=headers)
        refused.refused(401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"


def test_the_free_plan_refuses_what_it_does_not_include(free: Client) -> None:
    details = free.create(resourceLimits={"memory": 512}).refused(403, "forbidden")
    assert details["plan"] == "free"
    free.create(ttl=86401).refused(400, "invalid_request", "ttl")
    session = Session(free, free.create().done()["sessionId"])
    session.execute(command="true", timeout=31).refused(400, "invalid_request", "timeout")
    files = [{"path": f"f{number}", "content": ""} for number in range(101)]
    session.execute(command="true", files=files).refused(400, "invalid_request", "files")
    assert session.execute(command="ls | wc -l", files=files[:100]).done()["stdout"] == "100\n"
    too_big = "x" * (10 * 2**20 + 1)
    session.write("big", too_big).refused(413, "payload_too_large")
    session.execute(command="true", files=[{"path": "big", "content": too_big}]).refused(413, "payload_too_large")
    too_large = free.call(
        "POST", "/files/write", body=b" " * (33 * 2**20), headers={"Content-Type": "application/json"}
    )
    assert too_large.refused(413, "payload_too_large")["limit"] == 32 * 2**20
    session.delete().done()


def test_the_concurrent_sessions_of_an_account_are_counted(server: Server) -> None:
    account, client = _account(server, "free", "sessions=2")
    first, second = (Session(client, client.create().done()["sessionId"]) for _ in range(2))
    refused = client.create()
    details = refused.refused(429, "session_limit_exceeded")
    assert (details["limit"], details["active"]) == (2, 2)
    assert int(refused.headers["retry-after"]) > 0
    first.delete().done()
    third = Session(client, client.create().done()["sessionId"])
    for session in (second, third):
        session.delete().done()
    assert account in server.cli("accounts", "list")


def test_an_accounts_own_numbers_hold(server: Server) -> None:
    _, client = _account(server, "enterprise", "most.memory=200", "default.memory=100", "requests_per_minute=7")
    made = client.create().done()
    assert made["resourceLimits"]["memory"] == 100
    client.create(resourceLimits={"memory": 201}).refused(400, "invalid_request", "resourceLimits.memory")
    reply = client.call("GET", "/sessions")
    assert reply.headers["x-ratelimit-limit"] == "7"
    server.client(client.key).call("DELETE", f"/sessions/{made['sessionId']}").done()


def test_the_rate_limit_of_a_key_is_told_on_every_answer_and_enforced(server: Server) -> None:
    account, client = _account(server, "free")
    _wait_for_a_fresh_minute(8)
    replies = [client.call("GET", "/sessions") for _ in range(100)]
    assert [reply.status for reply in replies] == [200] * 100
    assert [int(reply.headers["x-ratelimit-remaining"]) for reply in replies] == list(range(99, -1, -1))
    assert {reply.headers["x-ratelimit-limit"] for reply in replies} == {"100"}
    refused = client.create()
    assert refused.refused(429, "rate_limit_exceeded")["plan"] == "free"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert 0 <= int(refused.headers["x-ratelimit-reset"]) - time.time() <= 61
    another_key = server.client(server.cli("keys", "create", "--account", account))
    assert another_key.call("GET", "/sessions").headers["x-ratelimit-remaining"] == "99"


def test_a_refusal_of_an_authenticated_call_carries_the_rate_limit_too(paid: Client) -> None:
    for reply in (paid.call("GET", "/sessions/unknown"), paid.create(ttl=1), paid.call("DELETE", "/sessions")):
        assert reply.status in (400, 404, 405)
        assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(reply.headers)


def _wait_for_a_fresh_minute(seconds: float) -> None:
    """Waits for the start of a rate limit window, so that the window does not end during the test."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left)


def _records(server: Server) -> list[Path]:
    return list((server.config.data_dir / "sandboxes").glob("*/record.json"))


def test_the_log_of_a_server_has_no_key_and_says_which_command_makes_one(server: Server) -> None:
    wanted = re.compile(r"BUNTIME_API_KEY=\$\(.*buntime keys create\)$", re.M)
    until(lambda: wanted.search(server.said()) is not None, "the welcome")
    assert "btk_" not in server.said()


def test_the_first_start_on_a_terminal_shows_a_key_that_works(servers: Servers) -> None:
    server = servers.make(pool_size=0)
    with Terminal([str(BUNTIME), "serve"], server.environment, cols=200, rows=50) as terminal:
        terminal.sees("First API key (shown this once): ")
        key = terminal.sees("\r\n").decode()
        assert server.client(key).call("GET", "/sessions").status == 200
        terminal.types(b"\x03")
        assert terminal.ends() == 0
