"""GET /usage and GET /usage/windows from a client's point of view."""

from typing import Any
from urllib.parse import quote

import pytest

from buntime.scope import Scope
from buntime.usage import DAY_MS, Amounts
from tests.app.serving import Api
from tests.app.sleeping import deep_sleep, stored_of

DAY, DATE, NEXT = 19_741, "2024-01-19", "2024-01-20"  # of the fixture's clock
ACCOUNT = "acc_one0000000000000"


async def usage(api: Api, query: str = "", key: str | None = None) -> Any:
    answer = await api.call("GET", f"/usage{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json


async def windows(api: Api, query: str = "", key: str | None = None) -> Any:
    answer = await api.call("GET", f"/usage/windows{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json


async def used(api: Api) -> str:
    """A session that was active for 10 s with 2 s of CPU, and asleep for 50 s. It is gone."""
    session = await api.session(name="mine")
    api.clock.now += 10
    sandbox = api.sandboxes.running[(await stored_of(api, session)).sandbox]
    sandbox.cpu, sandbox.bytes_out = 2_500_000, 77
    await deep_sleep(api, session)
    api.clock.now += 50
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
    return session


async def test_usage_adds_up_what_sessions_used_that_are_gone(api: Api) -> None:
    session = await used(api)
    told = await usage(api)
    assert (told["from"], told["to"]) == ("2023-12-21T00:00:00Z", "2024-01-20T00:00:00Z")
    assert (told["groups"], told["cursor"]) == ([], None)
    total = told["total"]
    assert {name: total[name] for name in ("active", "idle", "deepSleep", "cpuSeconds", "bytesOut")} == {
        **{"active": 10, "idle": 0, "deepSleep": 50, "cpuSeconds": 2.5, "bytesOut": 77}
    }
    assert total["weightedSeconds"] == 11
    assert (await usage(api, f"?sessionId={session}"))["total"] == total


async def test_groups_are_days_or_sessions(api: Api) -> None:
    session = await used(api)
    by_day, by_session = await usage(api, "?groupBy=day"), await usage(api, "?groupBy=session")
    total = by_day["total"]
    assert by_day["groups"] == [{**total, "day": DATE}]
    assert by_session["groups"] == [{**total, "sessionId": session}]
    assert (await usage(api, f"?groupBy=session&sessionId={session}"))["groups"] == by_session["groups"]
    assert (await usage(api, f"?groupBy=day&from={NEXT}&to=2024-02-01"))["groups"] == []


async def test_sessions_come_in_pages(api: Api) -> None:
    sessions = sorted([await used(api) for _ in range(3)])
    first = await usage(api, "?groupBy=session&limit=2")
    rest = await usage(api, f"?groupBy=session&limit=2&cursor={first['cursor']}")
    assert [group["sessionId"] for group in first["groups"] + rest["groups"]] == sessions
    assert rest["cursor"] is None
    assert first["total"] == rest["total"]


async def test_a_name_stands_for_a_living_session(api: Api) -> None:
    session = await api.session(name="mine")
    api.clock.now += 10
    await deep_sleep(api, session)
    assert (await usage(api, "?sessionId=name:mine"))["total"]["active"] == 10
    assert (await api.call("GET", "/usage?sessionId=name:other")).refusal == (404, "session_not_found")


async def test_days_are_asked_for_by_dates_and_times_with_offsets(api: Api) -> None:
    await used(api)
    for query in (
        f"?from={DATE}&to={NEXT}",
        "?from=2024-01-19T23:59Z&to=2024-01-20",
        "?to=" + quote("2024-01-19T12:00:00.5+02:00"),
    ):
        assert (await usage(api, query))["total"]["active"] == 10, query
    assert (await usage(api, f"?to={DATE}"))["total"]["active"] == 0


async def test_windows_are_handed_out_once_in_order(api: Api) -> None:
    assert await windows(api) == {"windows": [], "cursor": "uwc_0"}
    session = await used(api)
    first = await windows(api, "?limit=1")
    (active,) = first["windows"]
    assert active == {
        **{"windowId": f"win_{session.removeprefix('ses_')}_1", "sessionId": session, "state": "active"},
        **{"from": "2024-01-19T10:30:00.000Z", "to": "2024-01-19T10:30:10.000Z"},
        **{"active": 10, "idle": 0, "deepSleep": 0, "cpuSeconds": 2.5, "bytesOut": 77, "executions": 0},
        **{name: active[name] for name in ("memoryByteSeconds", "diskByteSeconds", "archivedByteSeconds")},
    }
    rest = await windows(api, f"?cursor={first['cursor']}")
    assert [window["state"] for window in rest["windows"]] == ["deep-sleep"]
    assert rest["windows"][0]["from"] == active["to"]
    assert (await windows(api, f"?cursor={rest['cursor']}"))["windows"] == []


async def test_numbers_that_javascript_cannot_hold_have_an_exponent(api: Api) -> None:
    api.store.days[ACCOUNT, "ses_abc123def456ghi789", DAY] = Amounts(active=DAY_MS, memory=1 << 60, disk=1 << 20)
    answer = await api.call("GET", "/usage")
    assert b'"memoryByteSeconds":1.1805916207174113e21' in answer.body
    assert b'"diskByteSeconds":1073741824,' in answer.body


async def test_another_account_sees_nothing_of_it(api: Api) -> None:
    session = await used(api)
    other = await api.account(name="two")
    assert (await usage(api, key=other))["total"]["active"] == 0
    assert (await windows(api, key=other))["windows"] == []
    for by in ("day", "session"):
        refused = await api.call("GET", f"/usage?sessionId={session}&groupBy={by}", key=other)
        assert refused.refusal == (404, "session_not_found")
    assert (await usage(api, f"?groupBy=session&cursor={session}", key=other))["groups"] == []


@pytest.mark.parametrize("path", ["/usage", "/usage/windows"])
async def test_usage_needs_its_scope(api: Api, path: str) -> None:
    key = await api.key_with(Scope.SESSIONS_READ, Scope.ACCOUNT_WRITE)
    refused = await api.call("GET", path, key=key)
    assert (refused.refusal, refused.error["details"]["scope"]) == ((403, "forbidden"), "account:read")
    assert (await api.call("GET", path, key=await api.key_with(Scope.ACCOUNT_READ))).status == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?from=yesterday", "from"),
        ("?from=2024-13-01", "from"),
        ("?from=2024-01-19T10:00:00", "from"),
        ("?from=1705660200", "from"),
        ("?from=0001-01-01T00:00:00%2B14:00", "from"),
        ("?to=9999-12-31", "to"),
        ("?from=2024-01-19&to=2024-01-19", "from"),
        ("?from=2022-01-01&to=2024-01-01", "from"),
        ("?from=2024-01-20", "from"),
        ("?groupBy=hour", "groupBy"),
        ("?groupBy=session&limit=101", "limit"),
        ("?groupBy=session&cursor=1", "cursor"),
        ("?groupBy=day&cursor=ses_abc123def456ghi789", "cursor"),
        ("?since=2024-01-01", "since"),
        ("/windows?cursor=1", "cursor"),
        ("/windows?cursor=uwc_", "cursor"),
        ("/windows?cursor=uwc_1", "cursor"),
        ("/windows?cursor=uwc_fffffffffffffff", "cursor"),
        ("/windows?limit=0", "limit"),
    ],
)
async def test_what_is_wrong_in_a_query_is_named(api: Api, query: str, field: str) -> None:
    refused = await api.call("GET", f"/usage{query}")
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), field), refused.body
