"""Sessions over HTTP, on real sandboxes."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

UNKNOWN = "ses_" + "0" * 18
ASKS_THE_NAME_SERVER = """python3 - <<'END'
import re, socket
question = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4name\\0\\0\\1\\0\\1"
server = re.search(r"nameserver (\\S+)", open("/etc/resolv.conf").read())[1]
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.settimeout(1)
probe.sendto(question, (server, 53))
try:
    print("answer" if probe.recv(512) else "nothing")
except TimeoutError:
    print("silence")
END
"""
DEFAULTS = {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}


def _time(text: str) -> datetime:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    return datetime.fromisoformat(text)


def test_a_session_is_created_with_the_defaults(server: Server, paid: Client) -> None:
    made = paid.create().done()
    session = Session(paid, made["sessionId"])
    assert set(made) == {"sessionId", "expiresAt", "previewUrl", "createdAt", "resourceLimits"}
    assert re.fullmatch(r"ses_[a-z0-9]{18}", made["sessionId"])
    assert made["previewUrl"] == f"http://{made['sessionId'].replace('_', '-')}.localhost:{server.config.port}"
    assert _time(made["expiresAt"]) - _time(made["createdAt"]) == timedelta(days=1)
    assert abs(_time(made["createdAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert made["resourceLimits"] == DEFAULTS
    session.delete().done()


def test_an_empty_body_of_any_type_makes_a_session_with_the_defaults(paid: Client) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        reply = paid.call("POST", "/sessions/create", body=b"", headers=headers)
        assert reply.done()["resourceLimits"] == DEFAULTS
        Session(paid, reply.json()["sessionId"]).delete().done()


def test_the_first_run_needs_no_start(paid: Client) -> None:
    session = paid.open()
    assert session.code("console.log(6 * 7)")["stdout"] == "42\n"
    session.delete().done()


def test_a_session_shows_what_it_was_made_with(paid: Client) -> None:
    asked: dict[str, Any] = {
        "ttl": 600,
        "metadata": {"user": "ünal 🚀", "n": 1.5, "deep": {"list": [1, None, True]}},
        "resourceLimits": {"memory": 256, "cpu": 0.5, "timeout": 7, "disk": 128},
        "preview": {"visibility": "private", "ports": [3000, 8080]},
        "network": {"egress": "none", "allow": [], "deny": []},
        "onWake": "bun run server.ts",
        "env": {"TOKEN": "very secret", "A": "1"},
    }
    made = paid.create(**asked).done()
    session = Session(paid, made["sessionId"])
    seen = session.look().done()
    assert {name: seen[name] for name in asked if name not in ("ttl", "env")} == {
        name: value for name, value in asked.items() if name not in ("ttl", "env")
    }
    assert seen["envNames"] == ["A", "TOKEN"]
    assert b"very secret" not in session.look().body
    assert seen["state"] == "active"
    assert _time(seen["expiresAt"]) - _time(seen["createdAt"]) == timedelta(seconds=600)
    assert {name: seen[name] for name in made} == made
    assert session.output("echo $TOKEN") == "very secret\n"
    session.delete().done()


def test_counts_are_of_files_in_the_workspace_and_of_the_sessions_own_processes(session: Session) -> None:
    assert (session.look().done()["filesCount"], session.look().done()["activeProcesses"]) == (0, 0)
    session.command("touch a b /root/elsewhere; mkdir d; touch d/c; sleep 600 & sleep 600 &")
    seen = session.look().done()
    assert (seen["filesCount"], seen["activeProcesses"]) == (3, 2)
    assert _listed(session) == (3, 2)
    session.command("pkill sleep")
    until(lambda: _listed(session) == (3, 0), "the processes to end")
    session.write("e", "").done()
    assert _listed(session) == (4, 0)
    until(lambda: session.look().done()["activeProcesses"] == 0, "the processes to end")


def _listed(session: Session) -> tuple[int, int]:
    every = session.client.call("GET", "/sessions").done()["sessions"]
    (seen,) = [one for one in every if one["sessionId"] == session.id]
    return seen["filesCount"], seen["activeProcesses"]


def test_looking_at_a_session_is_not_activity_and_a_run_is(session: Session) -> None:
    before = _time(session.look().done()["lastActive"])
    while datetime.now(UTC) < before + timedelta(seconds=2):
        time.sleep(0.1)
    assert _time(session.look().done()["lastActive"]) == before
    assert _time(session.patch(metadata={"a": 1}).done()["lastActive"]) == before
    session.command("true")
    assert _time(session.look().done()["lastActive"]) > before


def test_the_list_is_paged_filtered_and_newest_first(server: Server) -> None:
    account = server.new_client("free")
    made = []
    for number in range(4):
        made.append(account.create(metadata={"n": number, "kind": "odd" if number % 2 else "even"}).done()["sessionId"])
    listed = account.call("GET", "/sessions").done()
    assert listed["total"] == 4
    assert sorted(entry["sessionId"] for entry in listed["sessions"]) == sorted(made)
    times = [entry["createdAt"] for entry in listed["sessions"]]
    assert times == sorted(times, reverse=True)
    page = account.call("GET", "/sessions", query={"limit": 3, "offset": 2}).done()
    assert (len(page["sessions"]), page["total"]) == (2, 4)
    assert page["sessions"] == listed["sessions"][2:]
    odd = account.call("GET", "/sessions", query={"metadata.kind": "odd", "state": "active"}).done()
    assert {entry["metadata"]["n"] for entry in odd["sessions"]} == {1, 3}
    assert account.call("GET", "/sessions", query={"metadata.n": "2"}).done()["total"] == 1
    assert account.call("GET", "/sessions", query={"state": "idle"}).done() == {"sessions": [], "total": 0}
    with ThreadPoolExecutor(4) as pool:
        assert all(reply.status == 200 for reply in pool.map(lambda name: Session(account, name).delete(), made))
    assert account.call("GET", "/sessions").done()["total"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"offset": -1}, "offset"),
        ({"limit": "ten"}, "limit"),
        ({"state": "asleep"}, "state"),
        ({"sort": "age"}, "sort"),
    ],
)
def test_a_bad_query_of_the_list_is_named(paid: Client, query: dict[str, object], field: str) -> None:
    paid.call("GET", "/sessions", query=query).refused(400, "invalid_request", field)


def test_a_patch_replaces_each_field_whole_and_null_puts_the_default_back(session: Session) -> None:
    changed = session.patch(
        metadata={"a": 1},
        preview={"visibility": "private", "ports": [3000]},
        onWake="echo awake",
        env={"X": "1"},
        ttl=300,
    ).done()
    assert changed["metadata"] == {"a": 1}
    assert changed["preview"] == {"visibility": "private", "ports": [3000]}
    assert changed["onWake"] == "echo awake"
    assert changed["envNames"] == ["X"]
    left = _time(changed["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=200) < left <= timedelta(seconds=301)
    assert session.output("echo $X") == "1\n"
    again = session.patch(metadata={"b": 2}).done()
    assert (again["metadata"], again["onWake"]) == ({"b": 2}, "echo awake")
    back = session.patch(metadata=None, preview=None, onWake=None, env=None, ttl=None).done()
    assert (back["metadata"], back["onWake"], back["envNames"]) == ({}, None, [])
    assert back["preview"] == {"visibility": "public", "ports": [8080]}
    assert _time(back["expiresAt"]) - datetime.now(UTC) > timedelta(hours=23)
    assert session.output("echo [$X]") == "[]\n"


def test_a_patched_network_is_in_force_at_once(session: Session) -> None:
    assert session.output(ASKS_THE_NAME_SERVER) == "answer\n"
    session.patch(network={"egress": "none"}).done()
    assert session.output(ASKS_THE_NAME_SERVER) == "silence\n"
    assert session.patch(network=None).done()["network"] == {"egress": "internet", "allow": [], "deny": []}
    assert session.output(ASKS_THE_NAME_SERVER) == "answer\n"


def test_a_deleted_session_is_not_found_by_anything(paid: Client) -> None:
    session = paid.open()
    assert session.delete().done() == {"deleted": True, "sessionId": session.id}
    for reply in (
        session.delete(),
        session.look(),
        session.patch(metadata={}),
        session.execute(command="true"),
        session.write("a", "b"),
        session.read("a"),
        session.list(),
        session.delete_file("a"),
    ):
        reply.refused(404, "session_not_found")


def test_deletes_at_the_same_time_delete_once(paid: Client) -> None:
    session = paid.open()
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(lambda _: session.delete().status, range(4)))
    assert statuses == [200, 404, 404, 404]


def test_a_delete_ends_a_run_that_is_under_way(paid: Client) -> None:
    session = paid.open()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.execute, command="touch started; sleep 25")
        while session.look().done()["activeProcesses"] == 0:
            time.sleep(0.02)
        session.delete().done()
        running.result().refused(404, "session_not_found")


def test_a_session_of_another_account_is_not_found(session: Session, free: Client) -> None:
    theirs = Session(free, session.id)
    for reply in (
        theirs.look(),
        theirs.delete(),
        theirs.patch(metadata={}),
        theirs.execute(command="true"),
        theirs.write("a", "b"),
        theirs.read("a"),
        theirs.list(),
        theirs.delete_file("a"),
    ):
        reply.refused(404, "session_not_found")
    assert free.call("GET", "/sessions").done()["total"] == 0
    session.look().done()


def test_ids_that_cannot_be_are_not_found(paid: Client) -> None:
    for name in (UNKNOWN, "nonsense", "ses_" + "A" * 18, "%20%25", "ses_" + "a" * 5000):
        paid.call("GET", f"/sessions/{name}").refused(404, "session_not_found")
    paid.execute("ses_../../etc", command="true").refused(404, "session_not_found")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ttl": 299}, "ttl"),
        ({"ttl": 604801}, "ttl"),
        ({"ttl": "600"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": 600.5}, "ttl"),
        ({"ttl": 10**30}, "ttl"),
        ({"tll": 600}, "tll"),
        ({"metadata": {"a": "x" * 16384}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"resourceLimits": {"cpu": 1.5}}, "resourceLimits.cpu"),
        ({"resourceLimits": {"cpu": "1"}}, "resourceLimits.cpu"),
        ({"resourceLimits": {"memory": 4097}}, "resourceLimits.memory"),
        ({"resourceLimits": {"memory": 1}}, "resourceLimits.memory"),
        ({"resourceLimits": {"timeout": 301}}, "resourceLimits.timeout"),
        ({"resourceLimits": {"disk": 5121}}, "resourceLimits.disk"),
        ({"resourceLimits": {"ram": 1}}, "resourceLimits.ram"),
        ({"preview": {"visibility": "secret"}}, "preview.visibility"),
        ({"preview": {"ports": [80]}}, "preview.ports"),
        ({"network": {"egress": "all"}}, "network.egress"),
        ({"env": {"1A": "x"}}, "env"),
        ({"env": {"A": 1}}, "env.A"),
        ({"onWake": 5}, "onWake"),
    ],
)
def test_a_refusal_of_a_create_names_the_field(paid: Client, fields: dict[str, Any], field: str) -> None:
    paid.create(**fields).refused(400, "invalid_request", field)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b'{"ttl": NaN}', b"\xff\xfe", b'{"metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001],
)
def test_a_body_that_is_no_json_object_is_refused(session: Session, body: bytes) -> None:
    reply = session.client.call(
        "PATCH", f"/sessions/{session.id}", body=body, headers={"Content-Type": "application/json"}
    )
    reply.refused(400, "invalid_request")


def test_another_content_type_is_refused(paid: Client) -> None:
    reply = paid.call("POST", "/sessions/create", body=b"{}", headers={"Content-Type": "text/plain"})
    reply.refused(400, "invalid_request")


def test_twenty_sessions_at_once_are_all_made_and_run(paid: Client) -> None:
    def whole_life(number: int) -> str:
        session = paid.open()
        printed = str(session.code(f"console.log({number})")["stdout"])
        session.delete().done()
        return printed

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(whole_life, range(20))) == [f"{number}\n" for number in range(20)]
