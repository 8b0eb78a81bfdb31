"""Connections are reused, and small requests do not wait for the acknowledgement of an earlier packet."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from buntime_sdk import Buntime
from stand_in import KEY, Answer, Player, StandIn

CALLS = 20
HELD_BACK = 0.030  # seconds: a stall by Nagle's algorithm and delayed acknowledgement takes 40 ms or more


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_twenty_posts_take_no_longer_than_twenty_gets_on_one_connection() -> None:
    answer = Answer(body={"sessionId": "ses_1", "path": "a", "size": 4096})
    with StandIn([answer]) as server, Buntime(KEY, server.url) as client:
        files = client.sessions.open("ses_1").files
        gets = [timed(lambda: client.sessions.get("ses_1")) for _ in range(CALLS)]
        posts = [timed(lambda: files.write("a", "x" * 4096)) for _ in range(CALLS)]
    assert server.connections == 1
    assert len(server.asked) == 2 * CALLS
    assert statistics.median(posts) < statistics.median(gets) + HELD_BACK


def test_twenty_sequential_calls_use_one_connection(player: Player) -> None:
    works = [lambda got: got.sessions.get("ses_1"), *([lambda session: session.refresh()] * (CALLS - 1))]
    _, server = player.once([Answer(body={"sessionId": "ses_1"})], *works)
    assert (len(server.asked), server.connections) == (CALLS, 1)


def test_a_refusal_leaves_its_connection_reusable(player: Player) -> None:
    answers = [Answer(404, {"error": {"code": "file_not_found"}}), Answer(body={"path": "a", "created": True})]
    with StandIn(answers) as server:
        files: Any = None

        def kept(client: Any) -> Any:
            nonlocal files
            files = client.sessions.open("ses_1").files
            return files.exists("a")

        assert player.play(server.url, kept, lambda there: there or files.mkdir("a")) is True
    assert (len(server.asked), server.connections) == (2, 1)
