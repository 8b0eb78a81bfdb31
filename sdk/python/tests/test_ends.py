"""Ends of blocks, streams, terminals and unclosed clients: nothing is hidden, delayed or leaked."""

import gc
import json
import warnings
from typing import Any

import pytest
from buntime_sdk import Buntime, ConnectionFailed, InvalidRequest, Result, SessionNotFound, Unauthorized, Watching
from buntime_sdk.dialing import _require_order
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime
from stand_in import KEY, LOST, Answer, End, Player, StandIn, refusal
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

SESSION = {
    "sessionId": "ses_1",
    "previewUrl": "http://ses-1.localhost",
    "createdAt": "2024-01-19T10:30:00Z",
    "expiresAt": "2024-01-19T11:30:00Z",
    "resourceLimits": {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024},
}
RESULT = {"exitCode": 3, "executionTime": 1, "memoryUsed": 1, "cpuTime": 1, "timedOut": False, "filesWritten": []}
STREAM = {"Content-Type": "text/event-stream"}
IN_PROGRESS = refusal("idempotency_in_progress", 409, retryable=True, after=1)


def test_a_create_with_a_lost_response_waits_while_the_server_works_on_it(player: Player) -> None:
    session, server = player.once(
        [LOST, *[IN_PROGRESS] * 5, Answer(body=SESSION)], lambda client: client.sessions.create()
    )
    assert session.id == "ses_1"
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


def test_a_received_result_is_returned_even_if_the_connection_breaks_after_it(player: Player) -> None:
    answer = Answer(body=f"event: result\ndata: {json.dumps(RESULT)}\n\n", headers=STREAM, end=End.EARLY)
    events, _ = player.once([answer], lambda client: client.sessions.open("ses_1").stream("1"))
    assert [type(event) for event in events] == [Result]


def test_a_stream_that_was_iterated_still_has_its_result() -> None:
    with StandIn([Answer(body=f"event: result\ndata: {json.dumps(RESULT)}\n\n", headers=STREAM)]) as server:
        stream = Buntime(KEY, server.url).sessions.open("ses_1").stream("1")
        assert [type(event) for event in stream] == [Result]
        assert stream.result().exit_code == 3


def test_a_watch_starts_with_its_block() -> None:
    ready = Answer(body="event: ready\ndata: {}\n\n", headers=STREAM, end=End.OPEN)
    with StandIn([ready]) as server, Buntime(KEY, server.url).sessions.open("ses_1").files.watch() as changes:
        assert len(server.asked) == 1
        assert next(changes) == Watching()


def test_a_failed_deletion_does_not_hide_what_the_block_raised() -> None:
    def fail_inside(client: Buntime) -> None:
        with client.sessions.create():
            raise LookupError("mine")

    with StandIn([Answer(body=SESSION), LOST]) as server, pytest.raises(LookupError, match="mine"):
        fail_inside(Buntime(KEY, server.url, max_retries=0))


@pytest.mark.parametrize("code", ["context_not_found", "session_not_found"])
def test_a_deletion_inside_the_block_is_no_error_at_its_end(code: str) -> None:
    answers = [Answer(body=SESSION), Answer(body={"contextId": "ctx_1"}), refusal(code, 404)]
    with StandIn([*answers, refusal("session_not_found", 404)]) as server, Buntime(KEY, server.url) as client:
        with client.sessions.create() as session, session.contexts.create():
            pass
        assert [asked.method for asked in server.asked] == ["POST", "POST", "DELETE", "DELETE"]


def test_deleting_a_session_again_does_nothing() -> None:
    client = FakeBuntime()
    made = client.sessions.create()
    seen, opened = client.sessions.get(made.id), client.sessions.open(made.id)
    for handle in (opened, opened, made, made, seen):
        handle.delete()
    assert list(client.sessions.list()) == []


async def test_deleting_a_session_again_does_nothing_in_the_async_half() -> None:
    client = AsyncFakeBuntime()
    made = await client.sessions.create()
    refreshed = await client.sessions.open(made.id).refresh()
    for handle in (made, made, refreshed):
        await handle.delete()


def test_deleting_a_session_by_an_id_that_nothing_has_raises() -> None:
    client = FakeBuntime()
    session_id = client.sessions.create().id
    client.sessions.delete(session_id)
    with pytest.raises(SessionNotFound):
        client.sessions.delete(session_id)
    with pytest.raises(SessionNotFound):
        client.sessions.open(session_id).delete()


def test_a_new_session_knows_the_settings_that_it_was_created_with(player: Player) -> None:
    def create(client: Any) -> Any:
        return client.sessions.create(
            metadata={"user": "u1"}, preview={"visibility": "private"}, env={"B": "", "A": ""}
        )

    session, _ = player.once([Answer(body=SESSION)], create)
    assert (session.state, session.metadata, session.env_names) == ("active", {"user": "u1"}, ("A", "B"))
    assert (session.preview.visibility, session.network.egress) == ("private", "internet")


def test_an_id_is_escaped_to_one_path_segment(player: Player) -> None:
    _, server = player.once([Answer(body={})], lambda client: client.sessions.delete("../files/delete?path=x"))
    assert server.asked[0].path == "/sessions/..%2Ffiles%2Fdelete%3Fpath%3Dx"


def test_a_malformed_key_is_refused_without_being_shown(player: Player) -> None:
    with pytest.raises(Unauthorized) as refused:
        Buntime("btk_secret\nmore")
    assert "secret" not in str(refused.value)
    with pytest.raises(InvalidRequest):
        player.once([Answer(body=SESSION)], lambda client: client.sessions.create(idempotency_key="a\nb"))


def test_an_undecodable_body_raises_connection_failed(player: Player) -> None:
    wrong = Answer(body=b"not zipped", headers={"Content-Encoding": "gzip"})
    with pytest.raises(ConnectionFailed):
        player.once([wrong], lambda client: client.sessions.get("ses_1"), max_retries=0)


def test_an_unclosed_client_leaves_no_connection_open() -> None:
    with StandIn([Answer(body=SESSION), Answer(body={})]) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Buntime(KEY, server.url).sessions.create() as session:
            pass
        del session
        gc.collect()
    assert [str(warning.message) for warning in told] == []


@pytest.mark.parametrize("code", [1009, 1011], ids=["too large a message", "no answer to a ping"])
def test_a_terminal_closed_for_a_protocol_error_raises_connection_failed(code: int) -> None:
    with pytest.raises(ConnectionFailed):
        _require_order(ConnectionClosedError(None, Close(code, ""), None), "ws://a.test/terminal")
