"""Timeouts depend on the call: the transport gets the time that the call's program may take plus the client's own."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from buntime_sdk import AsyncBuntime, Buntime, RequestTimeout
from stand_in import Answer, End, Player

LIMITS: dict[str, object] = {"memory": 1024, "cpu": 1.0, "timeout": 120, "disk": 1024}
SESSION: dict[str, object] = {"sessionId": "ses_1", "resourceLimits": LIMITS, "previewUrl": "http://ses-1.localhost"}
RESULT: dict[str, object] = {
    "exitCode": 0,
    "executionTime": 1,
    "memoryUsed": 1,
    "cpuTime": 1,
    "timedOut": False,
    "filesWritten": [],
}
ANSWERS: dict[str, dict[str, object]] = {
    "/sessions/create": SESSION,
    "/sessions/ses_1": SESSION,
    "/contexts/create": {"contextId": "ctx_1"},
    "/execute": RESULT,
    "/processes/start": {"processId": "proc_1"},
}


class Noting:
    """Responds to everything, and records the timeout that it was given."""

    def __init__(self) -> None:
        self.given: list[dict[str, float | None]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.given.append(request.extensions["timeout"])
        if request.headers.get("content-type") == "application/json" and json.loads(request.content).get("stream"):
            return httpx2.Response(200, text=f"event: result\ndata: {json.dumps(RESULT)}\n\n")
        if request.url.path == "/files/watch":
            return httpx2.Response(200, text="event: ready\ndata: {}\n\n")
        return httpx2.Response(200, json=ANSWERS[request.url.path])


# A call on a new session, and the seconds of silence that it tolerates.
CALLS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "a run of 300 s": (lambda session: session.execute("1", timeout=300), 360),
    "a command of 300 s": (lambda session: session.execute_command("true", timeout=300), 360),
    "a run with the session's timeout": (lambda session: session.execute("1"), 180),
    "a refresh": (lambda session: session.refresh(), 60),
    "a process without waiting": (lambda session: session.processes.start("true"), 60),
    "a process with a port": (lambda session: session.processes.start("true", wait_for_port=8080), 90),
    "a process with a slow port": (
        lambda session: session.processes.start("true", wait_for_port=8080, wait_timeout=300),
        360,
    ),
    "a stream with heartbeats": (lambda session: session.stream("1", timeout=3600).result(), 75),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_may_take_as_long_as_its_program(name: str) -> None:
    call, seconds = CALLS[name]
    noting = Noting()
    with Buntime("btk_1", "http://x", transport=httpx2.MockTransport(noting)) as client:
        call(client.sessions.create())
    assert noting.given[-1]["read"] == seconds


@pytest.mark.parametrize("name", CALLS)
async def test_an_async_call_may_take_as_long_as_its_program(name: str) -> None:
    call, seconds = CALLS[name]
    noting = Noting()
    async with AsyncBuntime("btk_1", "http://x", transport=httpx2.MockTransport(noting)) as client:
        await call(await client.sessions.create())
    assert noting.given[-1]["read"] == seconds


def test_a_run_in_an_unknown_session_may_take_the_longest_time_of_any_plan() -> None:
    noting = Noting()
    with Buntime("btk_1", "http://x", transport=httpx2.MockTransport(noting)) as client:
        client.sessions.open("ses_1").execute("1")
        client.sessions.open("ses_1").contexts.create().execute("1")
        client.sessions.create().contexts.create().execute("1")
    assert [noting.given[index]["read"] for index in (0, 2, 5)] == [3660, 3660, 180]


def test_a_short_timeout_does_not_end_streams() -> None:
    noting = Noting()
    with Buntime("btk_1", "http://x", timeout=2, transport=httpx2.MockTransport(noting)) as client:
        client.sessions.open("ses_1").stream("1").result()
        with client.sessions.open("ses_1").files.watch() as changes:
            next(iter(changes))
        client.sessions.get("ses_1")
    assert [given["read"] for given in noting.given] == [17, 17, 2]
    assert all(given["connect"] == 2 for given in noting.given)


def test_connecting_has_its_own_timeout_and_waiting_for_a_pooled_connection_has_none() -> None:
    noting = Noting()
    with Buntime("btk_1", "http://x", transport=httpx2.MockTransport(noting)) as client:
        client.sessions.open("ses_1").execute("1", timeout=300)
    assert (noting.given[0]["connect"], noting.given[0]["pool"]) == (10, None)


def test_too_long_a_silence_raises_request_timeout() -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("", request=request)

    with Buntime("btk_1", "http://x", transport=httpx2.MockTransport(silent), max_retries=0) as client:
        with pytest.raises(RequestTimeout) as caught:
            client.sessions.get("ses_1")
        with pytest.raises(RequestTimeout):
            client.sessions.open("ses_1").execute("1")
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("request_timeout", None, True)


def test_a_real_silence_is_noticed(player: Player) -> None:
    with pytest.raises(RequestTimeout):
        player.once(
            [Answer(body="{", end=End.OPEN)], lambda client: client.sessions.get("ses_1"), timeout=0.2, max_retries=0
        )
