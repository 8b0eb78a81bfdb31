import asyncio
import re
from dataclasses import replace

import pytest

from buntime.inside import FileToWrite
from buntime.lifecycle import leases, observations
from buntime.ports import Observed, Sandbox
from buntime.session import State
from buntime.testing.sandboxes import FakeSandbox
from tests.app.serving import START, Api


async def test_a_session_is_created_with_the_defaults(api: Api) -> None:
    made = (await api.call("POST", "/sessions/create")).json
    assert re.fullmatch(r"ses_[a-z0-9]{18}", made["sessionId"])
    assert made == {
        "sessionId": made["sessionId"],
        "expiresAt": "2024-01-20T10:30:00Z",
        "previewUrl": f"http://{made['sessionId'].replace('_', '-')}.localhost:8000",
        "createdAt": "2024-01-19T10:30:00Z",
        "resourceLimits": {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024},
    }


async def test_a_session_shows_its_settings_but_not_the_values_of_env(api: Api) -> None:
    fields = {
        "name": "build",
        "ttl": 300,
        "metadata": {"user": "u1", "deep": [{"a": 1.5, "big": 10**25}], "text": "é\u0000😀"},
        "resourceLimits": {"memory": 2048, "cpu": 1},
        "preview": {"visibility": "private", "ports": [3000, 8080]},
        "network": {"egress": "none"},
        "onWake": "bun start",
        "sleepPolicy": {"idleAfter": 600, "deepSleepAfter": 3600, "checkpointEvery": 60, "awakeWhile": "processes"},
        "env": {"TOKEN": "s3cret", "A": ""},
    }
    session = await api.session(**fields)
    answer = await api.call("GET", f"/sessions/{session}")
    assert b"s3cret" not in answer.body
    assert answer.json == {
        "sessionId": session,
        "name": "build",
        "createdAt": "2024-01-19T10:30:00Z",
        "expiresAt": "2024-01-19T10:35:00Z",
        "lastActive": "2024-01-19T10:30:00Z",
        "state": "active",
        "filesCount": 0,
        "activeProcesses": 0,
        "metadata": fields["metadata"],
        "previewUrl": f"http://{session.replace('_', '-')}.localhost:8000",
        "resourceLimits": {"memory": 2048, "cpu": 1, "timeout": 30, "disk": 1024},
        "preview": {"visibility": "private", "ports": [3000, 8080]},
        "network": {"egress": "none", "allow": [], "deny": []},
        "onWake": "bun start",
        "sleepPolicy": fields["sleepPolicy"],
        "services": [],
        "checkpointedAt": None,
        "envNames": ["A", "TOKEN"],
        "image": "default",
        "snapshotId": None,
    }
    assert b'"cpu":1,' in answer.body


@pytest.mark.parametrize(
    ("fields", "field", "limit"),
    [
        ({"ttl": 299}, "ttl", 300),
        ({"ttl": 604801}, "ttl", 604800),
        ({"metadata": {"a": "é" * 8192}}, "metadata", 16384),
        ({"resourceLimits": {"memory": 4097}}, "resourceLimits.memory", 4096),
        ({"resourceLimits": {"cpu": 1.01}}, "resourceLimits.cpu", 1.0),
        ({"env": {f"A{n}": "" for n in range(101)}}, "env", 100),
    ],
)
async def test_a_number_out_of_its_bounds_is_invalid(
    api: Api, fields: dict[str, object], field: str, limit: float
) -> None:
    answer = await api.call("POST", "/sessions/create", fields)
    assert answer.refusal == (400, "invalid_request")
    assert answer.error["details"]["field"] == field
    assert answer.error["details"]["limit"] == limit
    assert str(limit) in answer.error["message"] or field in answer.error["message"]


async def test_resource_limits_are_forbidden_on_the_free_plan(api: Api) -> None:
    key = await api.account("free", "free")
    answer = await api.call("POST", "/sessions/create", {"resourceLimits": {}}, key=key)
    assert answer.refusal == (403, "forbidden")
    assert answer.error["details"] == {"plan": "free", "limit": "resourceLimits"}


async def test_more_sessions_than_the_plan_allows_are_refused(api: Api) -> None:
    key = await api.account("free", "full", sessions=1)
    assert (await api.call("POST", "/sessions/create", key=key)).status == 200
    answer = await api.call("POST", "/sessions/create", key=key)
    assert answer.refusal == (429, "session_limit_exceeded")
    assert answer.error["details"] == {"plan": "free", "limit": 1, "active": 1}
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_full_host_is_unavailable_and_says_when_to_retry(api: Api) -> None:
    api.sandboxes.capacity = 0
    answer = await api.call("POST", "/sessions/create")
    assert answer.refusal == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"


async def test_an_unknown_expired_deleted_or_foreign_session_is_not_found(api: Api) -> None:
    other = await api.account(name="other")
    foreign, deleted, expired = [await api.session(ttl=300) for _ in range(3)]
    await api.call("DELETE", f"/sessions/{deleted}")
    bodies = set()
    for session, key in ((foreign, other), (deleted, None), ("ses_" + "0" * 18, None), ("nonsense%00", None)):
        for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
            answer = await api.call(method, f"/sessions/{session}", body, key=key)
            assert answer.refusal == (404, "session_not_found")
            bodies.add(answer.error["message"])
    api.clock.now += 301
    answer = await api.call("GET", f"/sessions/{expired}")
    assert answer.refusal == (404, "session_not_found")
    assert bodies == {answer.error["message"]}


async def test_a_second_delete_is_not_found(api: Api) -> None:
    session = await api.session()
    assert (await api.call("DELETE", f"/sessions/{session}")).json == {"deleted": True, "sessionId": session}
    assert (await api.call("DELETE", f"/sessions/{session}")).refusal == (404, "session_not_found")


async def test_a_list_is_newest_first_in_pages_with_the_total(api: Api) -> None:
    made = []
    for _ in range(3):
        made.append(await api.session())
        api.clock.now += 1
    first = (await api.call("GET", "/sessions?limit=2")).json
    rest = (await api.call("GET", "/sessions?limit=2&offset=2")).json
    assert [one["sessionId"] for one in first["sessions"] + rest["sessions"]] == made[::-1]
    assert first["total"] == rest["total"] == 3
    assert (await api.call("GET", f"/sessions?offset={2**53 - 1}")).json == {"sessions": [], "total": 3}


async def counts(api: Api, session: str) -> tuple[int, int]:
    """Returns files and processes, on which GET /sessions and GET /sessions/ID must agree."""
    (listed,) = (await api.call("GET", "/sessions")).json["sessions"]
    shown = (await api.call("GET", f"/sessions/{session}")).json
    assert (listed["filesCount"], listed["activeProcesses"]) == (shown["filesCount"], shown["activeProcesses"])
    return listed["filesCount"], listed["activeProcesses"]


async def test_counts_follow_processes_runs_and_files(api: Api) -> None:
    session = await api.session()
    assert await counts(api, session) == (0, 0)
    body = {"sessionId": session, "command": "serve"}
    started = (await api.call("POST", "/processes/start", body)).json
    assert await counts(api, session) == (0, 1)
    api.clock.now += 5
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "x"})
    assert await counts(api, session) == (1, 1)
    api.clock.now += 5
    await api.call("POST", "/execute", {"sessionId": session, "command": "touch b"})
    assert await counts(api, session) == (2, 1)
    ending = {"sessionId": session, "processId": started["processId"], "signal": "SIGKILL"}
    await api.call("POST", "/processes/signal", ending)
    assert await counts(api, session) == (2, 0)


async def test_a_list_counts_files_of_processes_that_run_without_requests(api: Api) -> None:
    session = await api.session()
    await api.call("POST", "/processes/start", {"sessionId": session, "command": "serve"})
    api.clock.now += 5
    assert await counts(api, session) == (0, 1)
    (sandbox,) = api.sandboxes.running.values()
    await sandbox.files.write_batch([FileToWrite("/workspace/log", b"")])
    api.clock.now += 5
    (listed,) = (await api.call("GET", "/sessions")).json["sessions"]
    assert listed["filesCount"] == 1


async def test_a_quiet_session_is_not_counted_again_for_each_list(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, observe = [], FakeSandbox.observe

    async def counted(sandbox: FakeSandbox) -> Observed:
        looks.append(sandbox.id)
        return await observe(sandbox)

    monkeypatch.setattr(FakeSandbox, "observe", counted)
    session = await api.session()
    api.clock.now += 1
    for _ in range(3):
        await api.call("GET", "/sessions")
    assert len(looks) == 1
    await api.call("POST", "/execute", {"sessionId": session, "command": "touch a"})
    assert (await api.call("GET", "/sessions")).json["sessions"][0]["filesCount"] == 1


@pytest.mark.parametrize(("depth", "left"), [("idle", 1), ("deep-sleep", 0)])
async def test_a_sleeping_session_has_the_counts_of_its_last_activity(api: Api, depth: str, left: int) -> None:
    session = await api.session()
    await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "x"})
    await api.call("POST", "/processes/start", {"sessionId": session, "command": "serve"})
    assert await counts(api, session) == (1, 1)
    slept = (await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})).json
    assert (slept["filesCount"], slept["activeProcesses"]) == (1, 1)
    assert await counts(api, session) == (1, 1)
    woken = (await api.call("POST", f"/sessions/{session}/wake")).json
    assert (woken["filesCount"], woken["activeProcesses"]) == (1, left)
    assert await counts(api, session) == (1, left)


async def test_a_list_is_filtered_by_state_and_metadata(api: Api) -> None:
    mine = await api.session(metadata={"user.name": "a b", "n": 5})
    await api.session(metadata={"user.name": "c"})
    for query in ("metadata.user.name=a+b", "metadata.n=5", "metadata.user.name=a%20b&metadata.n=5&state=active"):
        found = (await api.call("GET", f"/sessions?{query}")).json
        assert [one["sessionId"] for one in found["sessions"]] == [mine]
    assert (await api.call("GET", "/sessions?state=idle")).json["total"] == 0
    assert (await api.call("GET", "/sessions?state=deep-sleep")).json["total"] == 0


async def test_a_patch_replaces_only_the_fields_that_it_names(api: Api) -> None:
    session = await api.session(metadata={"a": 1}, onWake="x", env={"A": "1"}, preview={"visibility": "private"})
    api.clock.now = START + 100
    changed = (await api.call("PATCH", f"/sessions/{session}", {"ttl": 300, "metadata": {"b": 2}})).json
    assert changed["expiresAt"] == "2024-01-19T10:36:40Z"
    assert changed["metadata"] == {"b": 2}
    assert (changed["onWake"], changed["envNames"], changed["preview"]["visibility"]) == ("x", ["A"], "private")
    assert changed["lastActive"] == "2024-01-19T10:30:00Z"


async def test_null_in_a_patch_restores_the_default(api: Api) -> None:
    session = await api.session(
        ttl=300, metadata={"a": 1}, onWake="x", env={"A": "1"}, preview={"ports": [3000]}, network={"egress": "none"}
    )
    body = dict.fromkeys(("ttl", "metadata", "onWake", "env", "preview", "network"))
    changed = (await api.call("PATCH", f"/sessions/{session}", body)).json
    assert changed["expiresAt"] == "2024-01-20T10:30:00Z"
    assert (changed["metadata"], changed["onWake"], changed["envNames"]) == ({}, None, [])
    assert changed["preview"] == {"visibility": "public", "ports": [8080]}
    assert changed["network"] == {"egress": "internet", "allow": [], "deny": []}


async def test_a_patch_is_refused_like_a_create(api: Api) -> None:
    session = await api.session()
    for body, field in (({"resourceLimits": {}}, "resourceLimits"), ({"ttl": 1}, "ttl"), ({"ttl": "1"}, "ttl")):
        answer = await api.call("PATCH", f"/sessions/{session}", body)
        assert answer.error["details"]["field"] == field
    assert (await api.call("PATCH", f"/sessions/{session}", b"")).refusal == (400, "invalid_request")


async def test_clients_do_not_find_a_session_that_is_being_deleted(api: Api) -> None:
    session = await api.session()
    stored = api.store.sessions[session]
    await api.store.change_session(stored, replace(stored, state=State.DELETING))
    assert (await api.call("GET", "/sessions")).json == {"sessions": [], "total": 0}
    assert (await api.call("GET", f"/sessions/{session}")).refusal == (404, "session_not_found")


async def test_what_is_not_taken_over_yet_holds_up_no_list_and_no_execute(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, other = await api.session(), await api.session()
    for session in (silent, other):
        await api.call("POST", "/files/write", {"sessionId": session, "path": "a", "content": "x"})
        await api.call("POST", "/processes/start", {"sessionId": session, "command": "serve"})
        assert (await api.call("GET", f"/sessions/{session}")).json["filesCount"] == 1
    of_silent, get, waiting = api.store.sessions[silent].sandbox, api.sandboxes.get, asyncio.Event()

    async def taking_over(sandbox_id: str) -> Sandbox | None:
        if sandbox_id == of_silent:
            await waiting.wait()
        return await get(sandbox_id)

    monkeypatch.setattr(api.sandboxes, "get", taking_over)
    monkeypatch.setattr(observations, "OBSERVE_SECONDS", 0.1)
    monkeypatch.setattr(leases, "WAKE_SECONDS", 0.1)
    async with asyncio.timeout(10):
        listed = (await api.call("GET", "/sessions")).json["sessions"]
        assert [(one["filesCount"], one["activeProcesses"]) for one in listed] == [(1, 1)] * 2
        shown = (await api.call("GET", f"/sessions/{silent}")).json
        assert (shown["filesCount"], shown["activeProcesses"]) == (1, 1)
        refused = await api.call("POST", "/execute", {"sessionId": silent, "command": "true"})
        assert refused.refusal == (503, "unavailable")
        assert refused.error["details"]["waking"] is True
    waiting.set()
    assert (await api.call("POST", "/execute", {"sessionId": silent, "command": "echo"})).status == 200
