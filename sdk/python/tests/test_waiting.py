"""Every wait can have a bound, in both halves, and the fake keeps it too."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from buntime_sdk import AsyncBuntime, Buntime, FileChange, InvalidRequest, LogEntry, RequestTimeout, Watching
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime, FakeResult
from stand_in import KEY, PATIENCE, Answer, End, Player, StandIn, refusal

PROCESS = {"processId": "proc_1", "status": "running", "exitCode": None, "reason": None, "name": None, "pid": 1}
RUNNING, ENDED = Answer(body=PROCESS), Answer(body={**PROCESS, "status": "exited", "exitCode": 0})
STREAM = {"Content-Type": "text/event-stream"}
LOG = f"event: stdout\nid: 2\ndata: {json.dumps({'data': 'a', 'time': '2024-01-19T10:30:00Z'})}\n\n"
SILENT = Answer(0, end=End.OPEN)
READY = Answer(body="event: ready\ndata: {}\n\n", headers=STREAM, end=End.OPEN)
SHORT = 0.2
SEEN = Answer(body={"sessionId": "ses_1", "previewUrl": "http://ses-1.localhost:8000", "preview": {"ports": [3001]}})


def process(client: Any) -> Any:
    return client.sessions.open("ses_1").processes.get("proc_1")


def test_waiting_for_a_process_ends_at_its_timeout(player: Player) -> None:
    with pytest.raises(TimeoutError, match=r"Process proc_1 was still running after 0\.2 seconds"):
        player.once([RUNNING], process, lambda one: one.wait(timeout=SHORT))
    with pytest.raises(TimeoutError):
        player.once([RUNNING], process, lambda one: one.wait(timeout=0))
    ended, _ = player.once([RUNNING, RUNNING, ENDED], process, lambda one: one.wait(timeout=PATIENCE))
    assert ended.exit_code == 0


def test_waiting_for_a_process_ends_although_the_server_is_silent(player: Player) -> None:
    with pytest.raises(TimeoutError, match="Process proc_1"):
        player.once([RUNNING, SILENT], process, lambda one: one.wait(timeout=SHORT), timeout=PATIENCE)


def test_following_ends_at_its_timeout(player: Player) -> None:
    quiet = Answer(body=LOG, headers=STREAM, end=End.OPEN)
    with pytest.raises(TimeoutError, match="Process proc_1"):
        player.once([RUNNING, quiet], process, lambda one: one.follow(timeout=SHORT))


def test_following_ends_at_its_timeout_while_the_server_is_away(player: Player) -> None:
    with pytest.raises(TimeoutError):
        player.once([RUNNING, refusal("unavailable", 503)], process, lambda one: one.follow(timeout=SHORT))


def test_a_watch_ends_at_its_timeout(player: Player) -> None:
    if player.half.value == "sync":
        with (
            StandIn([READY]) as server,
            Buntime(KEY, server.url).sessions.open("ses_1").files.watch(timeout=SHORT) as changes,
        ):
            assert next(changes) == Watching()
            with pytest.raises(TimeoutError, match=r"timeout of 0\.2 seconds"):
                next(changes)
        return
    asyncio.run(_watch())


async def _watch() -> None:
    with StandIn([READY]) as server:
        async with (
            AsyncBuntime(KEY, server.url) as client,
            client.sessions.open("ses_1").files.watch(timeout=SHORT) as changes,
        ):
            assert await anext(changes) == Watching()
            with pytest.raises(TimeoutError, match=r"timeout of 0\.2 seconds"):
                await anext(changes)


def _dribble(listening: socket.socket) -> None:
    """Answers one request with a part every few milliseconds, as long as the client takes them."""
    connection, _ = listening.accept()
    with connection, suppress(OSError):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"7\r\n: ping\n\r\n")
            time.sleep(0.01)


def test_a_stream_that_never_falls_silent_ends_at_its_timeout_too(player: Player) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=_dribble, args=(listening,), daemon=True)
        serving.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            player.play(url, lambda client: client.sessions.open("ses_1").files.watch(timeout=SHORT))
        serving.join(PATIENCE)
        assert not serving.is_alive()  # the connection was closed


def test_a_negative_timeout_is_refused() -> None:
    session = FakeBuntime().on_start("serve", FakeResult(running=True)).sessions.create()
    one = session.processes.start("serve")
    calls: list[Callable[[], object]] = [
        lambda: one.wait(timeout=-1),
        lambda: next(one.follow(timeout=-1)),
        lambda: session.files.watch(timeout=-1),
        lambda: session.fetch(timeout=0),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match="timeout must be"):
            call()


def test_the_fake_keeps_the_timeouts() -> None:
    session = FakeBuntime().on_start("serve", FakeResult("up\n", running=True)).sessions.create()
    one = session.processes.start("serve")
    with pytest.raises(TimeoutError):
        one.wait(timeout=0.05)
    followed = one.follow(timeout=SHORT)
    assert isinstance(next(followed), LogEntry)
    with pytest.raises(TimeoutError):
        next(followed)
    with session.files.watch(timeout=SHORT) as changes:
        session.files.write("a", "b")
        assert [next(changes), next(changes)] == [Watching(), FileChange("created", "a", "file")]
        with pytest.raises(TimeoutError):
            next(changes)


async def test_the_async_fake_keeps_the_timeouts() -> None:
    session = await AsyncFakeBuntime().on_start("serve", FakeResult("up\n", running=True)).sessions.create()
    one = await session.processes.start("serve")
    with pytest.raises(TimeoutError):
        await one.wait(timeout=0.05)
    followed = one.follow(timeout=SHORT)
    assert isinstance(await anext(followed), LogEntry)
    with pytest.raises(TimeoutError):
        await anext(followed)


def test_a_fetch_that_runs_out_of_time_is_not_sent_again_and_names_the_port(player: Player) -> None:
    paths: list[str] = []
    with StandIn([SEEN, SILENT]) as server:
        with pytest.raises(RequestTimeout, match=r"port 3001 of .* to GET /slow within 0\.2 seconds"):
            player.play(
                server.url, lambda client: client.sessions.open("ses_1").fetch("/slow", port=3001, timeout=SHORT)
            )
        paths += [asked.path for asked in server.asked]
    assert paths == ["/sessions/ses_1", "/slow"]
    assert player.paused == []


def test_a_fetch_ends_although_its_body_goes_on(player: Player) -> None:
    begun = time.monotonic()
    with StandIn([SEEN, Answer(body="a", end=End.OPEN)]) as server, pytest.raises(RequestTimeout, match="port 3001"):
        player.play(server.url, lambda client: client.sessions.open("ses_1").fetch(port=3001, timeout=SHORT))
    assert time.monotonic() - begun < PATIENCE


def test_a_fetch_ends_although_the_api_is_silent(player: Player) -> None:
    with StandIn([SILENT]) as server:
        with pytest.raises(RequestTimeout):
            player.play(server.url, lambda client: client.sessions.open("ses_1").fetch(port=3001, timeout=SHORT))
        assert len(server.asked) == 1
