"""GET /events from a client's point of view."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from buntime.event import EventType
from buntime.operations import events as operations
from buntime.ports import NumberedEvent
from buntime.scope import Scope
from buntime.web.wire.events import EventTypeName
from tests.app.serving import Api
from tests.waiting import eventually

SECONDS = 20.0
KEY = "key_one000000000"


async def events(api: Api, query: str = "", key: str | None = None) -> Any:
    answer = await api.call("GET", f"/events{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json


async def types(api: Api, query: str = "", key: str | None = None) -> list[str]:
    return [event["type"] for event in (await events(api, query, key))["events"]]


class Stream:
    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines

    async def next(self) -> tuple[str, str, Any]:
        """Name, id and content of the next event."""
        name = mark = ""
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                word, _, rest = line.decode().strip().partition(": ")
                if word == "event":
                    name = rest
                elif word == "id":
                    mark = rest
                elif word == "data":
                    return name, mark, json.loads(rest)
        raise AssertionError("the stream has ended")


@asynccontextmanager
async def following(api: Api, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    sent = {"Authorization": f"Bearer {api.key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.http.get(f"{api.url}/events?follow=true{query}", headers=sent) as answer:
        assert answer.status == 200, await answer.read()
        yield Stream(aiter(answer.content))


async def test_who_deleted_a_session_is_found_when_it_is_gone(api: Api) -> None:
    one = await api.session(name="ci")
    await api.session()
    await api.call("DELETE", f"/sessions/{one}", X_Forwarded_For="192.0.2.7", X_Request_Id="mine")
    created, deleted = (await events(api, f"?sessionId={one}"))["events"]
    assert created["type"] == "session.created"
    assert deleted.pop("eventId").startswith("evt_")
    assert deleted == {
        "type": "session.deleted",
        "sessionId": one,
        "time": "2024-01-19T10:30:00Z",
        "requestId": "mine",
        "data": {
            "name": "ci",
            "stateBefore": "active",
            "by": {"actor": "key", "keyId": KEY, "address": "192.0.2.7"},
        },
    }


async def test_pages_follow_one_another_by_their_cursors(api: Api) -> None:
    assert await events(api) == {"events": [], "cursor": "evc_0"}
    for _ in range(3):
        await api.session()
    first = await events(api, "?limit=2")
    assert len(first["events"]) == 2
    second = await events(api, f"?limit=2&cursor={first['cursor']}")
    assert len(second["events"]) == 1
    third = await events(api, f"?cursor={second['cursor']}")
    assert third == {"events": [], "cursor": second["cursor"]}
    await api.session()
    assert len((await events(api, f"?cursor={third['cursor']}"))["events"]) == 1


async def test_events_are_selected_by_type_and_by_the_name_of_a_session(api: Api) -> None:
    one = await api.session(name="ci")
    await api.call("POST", f"/sessions/{one}/sleep")
    await api.session()
    assert await types(api, "?type=session.idle") == ["session.idle"]
    assert await types(api, "?sessionId=name:ci") == ["session.created", "session.idle"]
    assert await types(api, "?type=webhook.test") == []


async def test_the_server_is_named_where_no_request_caused_it(api: Api) -> None:
    await api.session(ttl=300)
    api.clock.now += 301
    await api.keep(api.keeper())
    (expired,) = (await events(api, "?type=session.expired"))["events"]
    assert (expired["requestId"], expired["data"]["by"]) == (None, {"actor": "server"})


async def test_an_account_sees_no_event_of_another(api: Api) -> None:
    one = await api.session()
    other = await api.account(name="two")
    assert await types(api, key=other) == []
    assert await types(api, f"?sessionId={one}", key=other) == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("cursor=2a", 400),
        ("cursor=evc_", 400),
        ("cursor=evc_zz", 400),
        ("cursor=evc_ffffffffffffffff", 400),
        ("type=session", 400),
        ("limit=0", 400),
        ("limit=1001", 400),
        ("what=1", 400),
        ("sessionId=ses_none", 404),
        ("sessionId=name:none", 404),
    ],
)
async def test_other_queries_are_refused(api: Api, query: str, status: int) -> None:
    assert (await api.call("GET", f"/events?{query}")).status == status


async def test_events_need_account_read(api: Api) -> None:
    assert await types(api, key=await api.key_with(Scope.ACCOUNT_READ)) == []
    refused = await api.call("GET", "/events", key=await api.key_with(Scope.SESSIONS_READ, Scope.SESSIONS_WRITE))
    assert (refused.status, refused.json["error"]["details"]["scope"]) == (403, "account:read")


async def test_a_stream_has_what_happens_from_now_on(api: Api) -> None:
    await api.session()
    async with following(api) as stream:
        name, mark, content = await stream.next()
        assert (name, content) == ("ready", {"cursor": mark})
        one = await api.session()
        name, mark, content = await stream.next()
        assert (name, content["type"], content["sessionId"]) == ("event", "session.created", one)
        assert (await events(api))["cursor"] == mark


async def test_a_stream_that_breaks_goes_on_where_it_was(api: Api) -> None:
    async with following(api) as stream:
        _, mark, _ = await stream.next()
    one = await api.session()
    two = await api.session()
    async with following(api, Last_Event_ID=mark) as stream:
        await stream.next()
        assert (await stream.next())[2]["sessionId"] == one
        _, mark, content = await stream.next()
        assert content["sessionId"] == two
    three = await api.session()
    async with following(api, f"&cursor={mark}&type=session.created") as stream:
        await stream.next()
        assert (await stream.next())[2]["sessionId"] == three


async def test_a_stream_that_finds_nothing_goes_on_after_what_it_has_seen(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    listed = api.store.list_events

    async def looked(account_id: str | None, *, after: int = 0, **rest: Any) -> Sequence[NumberedEvent]:
        looks.append(after)
        return await listed(account_id, after=after, **rest)

    monkeypatch.setattr(api.store, "list_events", looked)
    monkeypatch.setattr(operations, "LOOK_SECONDS", 0.01)
    async with following(api, "&cursor=evc_0&type=webhook.created") as stream:
        await stream.next()
        for number in range(1, 4):
            await api.session()
            await eventually(lambda: len(looks) >= number)  # noqa: B023 - called in this turn
        assert looks == [0, 1, 2]
        await api.call("POST", "/webhooks/create", {"url": "https://example.com"})
        assert (await stream.next())[2]["type"] == "webhook.created"


async def test_streams_of_an_account_are_bounded(api: Api) -> None:
    api.key = await api.account(name="few", streams_per_account=1)
    async with following(api) as stream:
        await stream.next()
        refused = await api.call("GET", "/events?follow=true")
        assert (refused.status, refused.json["error"]["code"]) == (429, "resource_limit_exceeded")


def test_the_shapes_name_every_type() -> None:
    assert list(get_args(EventTypeName)) == [one.value for one in EventType]
