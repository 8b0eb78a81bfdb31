"""GET /files/watch from a client's point of view."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from buntime.inside import FileEvent
from buntime.ports import SandboxGone
from buntime.session import State
from buntime.testing.files import FakeFiles
from tests.app.serving import Api
from tests.waiting import eventually

SECONDS = 20.0


class Events:
    def __init__(self, answer: AsyncIterator[tuple[str, object]]) -> None:
        self._answer = answer

    async def next(self) -> tuple[str, object]:
        async with asyncio.timeout(SECONDS):
            return await anext(self._answer)


@asynccontextmanager
async def watching(api: Api, session: str, query: str = "") -> AsyncIterator[Events]:
    url = f"{api.url}/files/watch?sessionId={session}{query}"
    async with api.http.get(url, headers={"Authorization": f"Bearer {api.key}"}) as answer:
        assert answer.status == 200, await answer.read()
        assert answer.headers["content-type"] == "text/event-stream"

        async def events() -> AsyncIterator[tuple[str, object]]:
            name = ""
            async for line in answer.content:
                if line.startswith(b"event: "):
                    name = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])

        yield Events(events())


def files(api: Api) -> FakeFiles[object]:  # type: ignore[type-var]
    return next(iter(api.sandboxes.running.values())).files  # type: ignore[return-value]


async def test_changes_are_reported_as_they_come(api: Api) -> None:
    session = await api.session()
    async with watching(api, session) as events:
        assert await events.next() == ("ready", {})
        told = files(api).watchers[0]
        told.put_nowait(FileEvent("created", "a/b", "file"))
        told.put_nowait(FileEvent("renamed", "c", "directory", "b"))
        told.put_nowait(FileEvent("deleted", "\udcff"))
        told.put_nowait(FileEvent("overflow", "."))
        told.put_nowait(FileEvent("overflow", "deep", unwatched=True))
        assert [await events.next() for _ in range(5)] == [
            ("change", {"event": "created", "path": "a/b", "type": "file"}),
            ("change", {"event": "renamed", "path": "c", "type": "directory", "from": "b"}),
            ("change", {"event": "deleted", "path": "\ufffd", "pathBase64": "/w=="}),
            ("overflow", {"reason": "lost", "path": "."}),
            ("overflow", {"reason": "unwatched", "path": "deep"}),
        ]
    await eventually(lambda: not files(api).watchers)


async def test_a_watch_does_not_keep_the_session_awake_and_continues_after_sleep(api: Api) -> None:
    session = await api.session()
    async with watching(api, session) as events:
        await events.next()
        assert (await api.call("POST", f"/sessions/{session}/sleep", {})).json["state"] == "idle"
        assert (await api.call("POST", f"/sessions/{session}/wake")).status == 200
        files(api).watchers[0].put_nowait(FileEvent("changed", "a", "file"))
        assert (await events.next())[0] == "change"


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.DEEP_SLEEP, "invalid_state"), (State.DELETING, "session_not_found"), (None, "unavailable")],
)
async def test_the_end_of_a_watch_has_a_reason(api: Api, state: State | None, code: str) -> None:
    session = await api.session()
    async with watching(api, session) as events:
        await events.next()
        told = files(api).watchers[0]
        if state is not None:
            api.store.sessions[session] = replace(api.store.sessions[session], state=state)
        told.put_nowait(SandboxGone("killed"))
        name, error = await events.next()
        assert name == "error"
        assert isinstance(error, dict)
        assert error["code"] == code
        with pytest.raises(StopAsyncIteration):
            await events.next()


async def test_a_path_that_cannot_be_watched_is_an_ordinary_answer(api: Api) -> None:
    session = await api.session()
    for query, refusal in (
        (f"sessionId={session}&path=none", (404, "file_not_found")),
        (f"sessionId={session}&path=%00", (400, "invalid_request")),
        (f"sessionId={session}&recursive=1", (400, "invalid_request")),
        ("sessionId=ses_000000000000000000", (404, "session_not_found")),
    ):
        assert (await api.call("GET", f"/files/watch?{query}")).refusal == refusal


async def test_watches_count_as_open_streams(api: Api) -> None:
    api.key = await api.account(name="two", streams_per_session=1)
    session = await api.session()
    async with watching(api, session) as events:
        await events.next()
        answer = await api.call("GET", f"/files/watch?sessionId={session}")
        assert answer.refusal == (429, "resource_limit_exceeded")
        assert answer.error["details"]["limit"] == 1
    await eventually(lambda: not files(api).watchers)
    async with watching(api, session) as events:
        assert await events.next() == ("ready", {})
