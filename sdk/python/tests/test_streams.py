"""Streams: a broken one raises an error, and leaving one closes it."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from buntime_sdk import (
    AsyncBuntime,
    Buntime,
    BuntimeError,
    ConnectionFailed,
    LogEntry,
    LogsDropped,
    MemoryLimitExceeded,
    ProcessExit,
    ProcessStarted,
    Result,
    SessionNotFound,
    Stderr,
    Stdout,
    Unavailable,
    Watching,
)
from buntime_sdk._sync.calls import Call
from stand_in import KEY, PATIENCE, Answer, End, Player, StandIn, refusal

STREAM = {"Content-Type": "text/event-stream"}
RESULT = {"exitCode": 3, "executionTime": 1, "memoryUsed": 1, "cpuTime": 1, "timedOut": False, "filesWritten": []}
PROCESS = Answer(body={"processId": "proc_1", "status": "running"})


def event(name: str, number: int | None = None, /, **data: object) -> str:
    identity = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{identity}data: {json.dumps(data)}\n\n"


def printed(data: str, cursor: int) -> str:
    return event("stdout", cursor, data=data, time="2024-01-19T10:30:00Z")


def streamed(*events: str, end: End = End.IN_ORDER) -> Answer:
    return Answer(body="".join(events), headers=STREAM, end=end)


def run(client: Any) -> Any:
    return client.sessions.open("ses_1").stream_command("make")


FOLLOWED = (
    lambda client: client.sessions.open("ses_1").processes.get("proc_1"),
    lambda process: process.follow(),
)


def test_a_run_yields_typed_events(player: Player) -> None:
    answer = streamed(
        event("process", processId="proc_1"),
        event("stdout", data="1\n"),
        ": silence\n\n",
        event("new in 2031", data="?"),
        event("stderr", data="2\n"),
        event("result", **RESULT),
    )
    events, _ = player.once([answer], run)
    assert events[:3] == [ProcessStarted("proc_1"), Stdout("1\n"), Stderr("2\n")]
    assert [type(one) for one in events[3:]] == [Result]
    assert events[3].result.exit_code == 3


def test_the_result_has_the_unread_output(player: Player) -> None:
    answer = streamed(event("stdout", data="1"), event("stderr", data="!"), event("stdout", data="2"))
    answer = streamed(str(answer.body), event("result", **RESULT))
    result, _ = player.once([answer], lambda client: run(client).result())
    assert (result.stdout, result.stderr, result.exit_code) == ("12", "!", 3)


@pytest.mark.parametrize("end", [End.EARLY, End.IN_ORDER])
def test_a_broken_run_stream_raises_connection_failed(end: End) -> None:
    with StandIn([streamed(event("stdout", data="1"), end=end)]) as server, Buntime(KEY, server.url) as client:
        events = iter(run(client))
        assert next(events) == Stdout("1")
        with pytest.raises(ConnectionFailed) as caught:
            next(events)
    assert caught.value.begun
    assert len(server.asked) == 1


@pytest.mark.parametrize("end", [End.EARLY, End.IN_ORDER])
async def test_a_broken_async_run_stream_raises_connection_failed(end: End) -> None:
    with StandIn([streamed(event("stdout", data="1"), end=end)]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            events = aiter(run(client))
            assert await anext(events) == Stdout("1")
            with pytest.raises(ConnectionFailed):
                await anext(events)
    assert len(server.asked) == 1


def test_a_limit_that_stops_a_run_is_raised_to_its_reader(player: Player) -> None:
    told = event("error", code="memory_limit_exceeded", message="Full.", retryable=False, details={"limit": 128})
    with pytest.raises(MemoryLimitExceeded, match=r"Full\.") as caught:
        player.once([streamed(event("stdout", data="1"), told)], run)
    assert caught.value.details == {"limit": 128}


def test_a_refused_run_raises_like_any_call(player: Player) -> None:
    with pytest.raises(SessionNotFound):
        player.once([refusal("session_not_found", 404)], run)


def test_leaving_a_stream_closes_its_connection() -> None:
    with StandIn([streamed(event("stdout", data="1"), end=End.OPEN)]) as server, Buntime(KEY, server.url) as client:
        with run(client) as events:
            assert next(iter(events)) == Stdout("1")
            assert not server.left.acquire(timeout=0.05)
        assert server.left.acquire(timeout=PATIENCE)


def test_leaving_the_loop_closes_the_connection() -> None:
    both = streamed(event("stdout", data="1"), event("ready"), end=End.OPEN)
    with StandIn([both]) as server, Buntime(KEY, server.url) as client:
        for left in (run, lambda client: client.sessions.open("ses_1").files.watch()):
            for _ in left(client):
                break
            assert server.left.acquire(timeout=PATIENCE)


async def test_leaving_an_async_loop_closes_the_connection() -> None:
    with StandIn([streamed(event("stdout", data="1"), end=End.OPEN)]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            async for _ in run(client):
                break
            assert await asyncio.to_thread(server.left.acquire, timeout=PATIENCE)


async def test_leaving_an_async_stream_closes_its_connection() -> None:
    with StandIn([streamed(event("stdout", data="1"), end=End.OPEN)]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            async with run(client) as events:
                assert await anext(aiter(events)) == Stdout("1")
            assert await asyncio.to_thread(server.left.acquire, timeout=PATIENCE)


async def test_cancelling_a_task_closes_its_streams_connection() -> None:
    with StandIn([streamed(event("stdout", data="1"), end=End.OPEN)]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run(client).result(), 0.1)
            assert await asyncio.to_thread(server.left.acquire, timeout=PATIENCE)


def test_a_failure_in_the_block_closes_the_connection() -> None:
    with StandIn([streamed(event("stdout", data="1"), end=End.OPEN)]) as server, Buntime(KEY, server.url) as client:
        with suppress(ZeroDivisionError), run(client) as events:
            raise ZeroDivisionError(next(iter(events)))
        assert server.left.acquire(timeout=PATIENCE)


def test_an_unread_response_closes_its_connection() -> None:
    with StandIn([Answer(body=b"1", end=End.OPEN)]) as server, Buntime(KEY, server.url) as client:
        with client._calls.answer(Call("GET", "/files/content")):
            assert not server.left.acquire(timeout=0.05)
        assert server.left.acquire(timeout=PATIENCE)


def test_a_stream_that_is_never_read_sends_no_request() -> None:
    with StandIn([PROCESS]) as server, Buntime(KEY, server.url) as client:
        with run(client):
            pass
        assert server.asked == []


def test_a_stream_read_to_its_end_leaves_its_connection_reusable(player: Player) -> None:
    done = streamed(event("result", **RESULT))
    with StandIn([done]) as server:
        if player.half.value == "sync":
            with Buntime(KEY, server.url) as client:
                for _ in range(3):
                    run(client).result()
        else:

            async def thrice() -> None:
                async with AsyncBuntime(KEY, server.url) as client:
                    for _ in range(3):
                        await run(client).result()

            asyncio.run(thrice())
    assert (len(server.asked), server.connections) == (3, 1)


def test_following_logs_resumes_after_a_broken_connection(player: Player) -> None:
    answers = [
        PROCESS,
        streamed(printed("a", 1), printed("b", 2), end=End.EARLY),
        streamed(event("dropped", 5, bytes=3), end=End.EARLY),
        streamed(printed("c", 6)),
        streamed(event("exit", 6, status="exited", exitCode=0, reason=None)),
    ]
    events, server = player.once(answers, *FOLLOWED)
    assert [one.data for one in events if isinstance(one, LogEntry)] == ["a", "b", "c"]
    assert events[2] == LogsDropped(3, 5)
    assert events[-1] == ProcessExit("exited", 0, None)
    assert [one.query.get("cursor") for one in server.asked[1:]] == [None, "2", "5", "6"]
    assert len(player.paused) == 3


def test_following_logs_gives_up_after_a_minute_without_output(player: Player) -> None:
    with pytest.raises(ConnectionFailed):
        player.once([PROCESS, streamed(end=End.EARLY)], *FOLLOWED)
    assert 60 <= sum(player.paused) <= 66
    assert max(player.paused) <= 5


def test_following_logs_of_a_missing_process_fails_at_once(player: Player) -> None:
    with pytest.raises(SessionNotFound):
        player.once([PROCESS, refusal("session_not_found", 404)], *FOLLOWED)
    assert player.paused == []


def test_a_watch_reports_changes_until_the_connection_breaks(player: Player) -> None:
    seen: list[object] = []

    def watch(client: Any) -> Any:
        return client.sessions.open("ses_1").files.watch("src")

    with pytest.raises(ConnectionFailed):
        player.once([streamed(event("ready"), end=End.EARLY)], watch)
    with StandIn([streamed(event("ready"), end=End.OPEN)]) as server, Buntime(KEY, server.url) as client:
        with watch(client) as changes:
            seen.append(next(iter(changes)))
        assert server.left.acquire(timeout=PATIENCE)
    assert seen == [Watching()]


def test_a_download_that_breaks_off_leaves_no_file(player: Player, tmp_path: Any) -> None:
    with pytest.raises(ConnectionFailed):
        player.once(
            [Answer(body=b"0123456789", end=End.EARLY)],
            lambda client: client.sessions.open("ses_1").files.download("a", tmp_path / "local"),
        )
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_process_polls_less_and_less_often(player: Player) -> None:
    ended = Answer(body={"processId": "proc_1", "status": "exited", "exitCode": 4})
    process, server = player.once(
        [PROCESS] * 5 + [ended],
        lambda client: client.sessions.open("ses_1").processes.get("proc_1"),
        lambda process: process.wait(),
    )
    assert process.exit_code == 4
    assert len(server.asked) == 6
    assert player.paused == sorted(player.paused)
    assert player.paused[0] == 0.05


def test_a_long_wait_for_a_process_does_not_use_up_the_rate_limit(player: Player) -> None:
    with StandIn([PROCESS]) as server:

        class Minute(Exception):
            pass

        player.paused = Bounded(60.0, Minute)
        with pytest.raises(Minute):
            player.play(
                server.url,
                lambda client: client.sessions.open("ses_1").processes.get("proc_1"),
                lambda process: process.wait(),
            )
        assert len(server.asked) <= 30


class Bounded(list[float]):
    """Raises when the total wait exceeds the bound."""

    def __init__(self, bound: float, raised: type[Exception]) -> None:
        super().__init__()
        self._bound, self._raised = bound, raised

    def append(self, seconds: float, /) -> None:
        super().append(seconds)
        if sum(self) > self._bound:
            raise self._raised


def test_following_logs_pauses_even_without_a_retry_delay(player: Player) -> None:
    broken = refusal("unavailable", 503)
    with pytest.raises(Unavailable):
        player.once([PROCESS, broken], *FOLLOWED, retry_delay=0)
    assert sum(player.paused) >= 60
    assert len(player.paused) < 40


@pytest.mark.parametrize("data", ["{", "[1]"])
def test_an_event_without_a_json_object_raises_a_buntime_error(player: Player, data: str) -> None:
    with pytest.raises(BuntimeError) as caught:
        player.once([streamed(f"event: stdout\ndata: {data}\n\n")], run)
    assert caught.value.code == "unexpected_answer"
