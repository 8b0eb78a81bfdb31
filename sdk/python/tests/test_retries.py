"""Which calls are retried, and which are not."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from buntime_sdk import (
    BuntimeError,
    ConnectionFailed,
    FileNotFound,
    IdempotencyInProgress,
    RateLimitExceeded,
    SessionLimitExceeded,
    SessionNotFound,
    Unavailable,
)
from buntime_sdk.errors import error_of
from buntime_sdk.retries import LONGEST_DELAY, LONGEST_RETRY_AFTER, RetryRules, delay_before
from hypothesis import given
from hypothesis import strategies as st
from stand_in import LOST, Answer, Asked, End, Player, StandIn, refusal

SESSION = {"sessionId": "ses_1", "previewUrl": "http://ses-1.localhost", "createdAt": "2024-01-19T10:30:00Z"}
PROCESS = {"processId": "proc_1", "pid": 2, "status": "running", "exitCode": None, "reason": None}
RESULT = {
    "exitCode": 0,
    "executionTime": 1,
    "memoryUsed": 1,
    "cpuTime": 1,
    "timedOut": False,
    "filesWritten": [],
    "stdout": "1\n",
    "stderr": "",
}
TOKEN = {"url": "http://x", "token": "bpt_1", "expiresAt": "2024-01-19T10:30:00Z"}

Work: TypeAlias = Callable[[Any], Any]


def session(client: Any) -> Any:
    return client.sessions.open("ses_1")


def execute(client: Any) -> Any:
    return session(client).execute("console.log(1)")


def keys(asked: list[Asked]) -> set[str | None]:
    return {one.headers.get("idempotency-key") for one in asked}


MAKES: dict[str, tuple[Work, object]] = {
    "sessions.create": (lambda client: client.sessions.create(ttl=300), SESSION),
    "processes.start": (lambda client: session(client).processes.start("sleep 1"), PROCESS),
    "contexts.create": (lambda client: session(client).contexts.create(), {"contextId": "ctx_1"}),
    "preview_token": (lambda client: session(client).preview_token(), TOKEN),
    "execute with a key": (lambda client: session(client).execute("1", idempotency_key="mine"), RESULT),
}
REPEATABLE: dict[str, tuple[Work, object]] = {
    "get": (lambda client: client.sessions.get("ses_1"), SESSION),
    "files.write": (
        lambda client: session(client).files.write("a", "1"),
        {"path": "a", "size": 1},
    ),
    "files.mkdir": (lambda client: session(client).files.mkdir("a"), {"path": "a", "created": True}),
    "extend": (lambda client: session(client).extend(600), SESSION),
    "sleep": (lambda client: session(client).sleep(), SESSION),
    "wake": (lambda client: session(client).wake(), {**SESSION, "wokeFrom": "idle", "wakeTimeMs": 3}),
}
UNREPEATABLE: dict[str, Work] = {
    "execute": execute,
    "run": lambda client: session(client).execute_command("true"),
    "stream": lambda client: session(client).stream("1"),
    "files.write that appends": lambda client: session(client).files.write("a", "1", append=True),
    "files.move": lambda client: session(client).files.move("a", "b"),
}


@pytest.mark.parametrize("name", MAKES)
def test_a_creating_call_is_retried_with_the_same_key_when_the_response_is_lost(player: Player, name: str) -> None:
    work, answer = MAKES[name]
    _, server = player.once([LOST, LOST, Answer(body=answer)], work)
    assert len(server.asked) == 3
    assert len(keys(server.asked)) == 1
    assert None not in keys(server.asked)
    assert len({(one.method, one.path, one.body) for one in server.asked}) == 1


@pytest.mark.parametrize("name", [name for name in MAKES if "with a key" not in name])
def test_two_calls_have_two_keys(player: Player, name: str) -> None:
    work, answer = MAKES[name]
    with StandIn([Answer(body=answer)]) as server:
        for _ in range(2):
            player.play(server.url, work)
    assert len(keys(server.asked)) == 2


def test_the_callers_key_is_sent(player: Player) -> None:
    _, server = player.once([Answer(body=SESSION)], lambda client: client.sessions.create(idempotency_key="mine"))
    assert keys(server.asked) == {"mine"}


@pytest.mark.parametrize("name", REPEATABLE)
@pytest.mark.parametrize("failure", [LOST, Answer(502, "bad gateway"), refusal("unavailable", 503, after=1)])
def test_a_repeatable_call_is_retried(player: Player, name: str, failure: Answer) -> None:
    work, answer = REPEATABLE[name]
    _, server = player.once([failure, Answer(body=answer)], work)
    assert len(server.asked) == 2
    assert len(player.paused) == 1


@pytest.mark.parametrize("name", UNREPEATABLE)
@pytest.mark.parametrize("failure", [LOST, Answer(502, "bad gateway"), refusal("unavailable", 503, after=1)])
def test_a_call_that_is_not_repeatable_is_not_retried(player: Player, name: str, failure: Answer) -> None:
    with pytest.raises(BuntimeError) as caught:
        player.once([failure, Answer(body=RESULT)], UNREPEATABLE[name])
    assert isinstance(caught.value, ConnectionFailed) is (failure is LOST)
    assert player.paused == []


def test_a_run_is_not_retried_when_its_response_breaks_off(player: Player) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        player.once([Answer(body='{"exitCode": 0, "std', end=End.EARLY), Answer(body=RESULT)], execute)
    assert caught.value.begun
    assert player.paused == []


def test_a_repeatable_call_is_retried_when_its_response_breaks_off(player: Player) -> None:
    answers = [Answer(body='{"sessionId": "se', end=End.EARLY), Answer(body=SESSION)]
    made, server = player.once(answers, lambda client: client.sessions.create())
    assert made.id == "ses_1"
    assert len(server.asked) == 2
    assert len(keys(server.asked)) == 1


def test_even_a_run_is_retried_when_the_connection_is_refused(player: Player) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        player.play("http://127.0.0.1:9", execute)
    assert not caught.value.begun
    assert len(player.paused) == 2


@pytest.mark.parametrize("work", [execute, REPEATABLE["get"][0]])
def test_retry_after_is_obeyed(player: Player, work: Work) -> None:
    answers = [refusal("rate_limit_exceeded", 429, retryable=True, after=7), Answer(body={**SESSION, **RESULT})]
    _, server = player.once(answers, work)
    assert len(server.asked) == 2
    assert player.paused == [7.0]


def test_a_retry_after_above_a_minute_is_raised_at_once(player: Player) -> None:
    with pytest.raises(RateLimitExceeded) as caught:
        player.once([refusal("rate_limit_exceeded", 429, after=61)], REPEATABLE["get"][0])
    assert caught.value.retry_after == 61.0
    assert player.paused == []


def test_a_full_account_is_raised_at_once(player: Player) -> None:
    answers = [refusal("session_limit_exceeded", 429, retryable=True, after=1), Answer(body=SESSION)]
    with pytest.raises(SessionLimitExceeded):
        player.once(answers, MAKES["sessions.create"][0])
    assert player.paused == []


@pytest.mark.parametrize("code", ["session_not_found", "invalid_request", "session_busy", "resource_limit_exceeded"])
def test_an_error_that_would_repeat_is_raised_at_once(player: Player, code: str) -> None:
    with pytest.raises(BuntimeError) as caught:
        player.once([refusal(code, 409, retryable=True)], REPEATABLE["get"][0])
    assert caught.value.code == code
    assert player.paused == []


def test_a_retry_waits_for_the_first_request_with_its_key(player: Player) -> None:
    answers = [LOST, refusal("idempotency_in_progress", 409, retryable=True, after=1), Answer(body=SESSION)]
    made, server = player.once(answers, MAKES["sessions.create"][0])
    assert made.id == "ses_1"
    assert len(server.asked) == 3
    assert player.paused[1] == 1.0


def test_a_deletion_with_a_lost_response_succeeds(player: Player) -> None:
    gone = refusal("session_not_found", 404)
    _, server = player.once([LOST, gone], lambda client: client.sessions.delete("ses_1"))
    assert len(server.asked) == 2
    _, server = player.once([LOST, refusal("file_not_found", 404)], lambda client: session(client).files.delete("a"))
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "answers",
    [[refusal("session_not_found", 404)], [refusal("rate_limit_exceeded", 429), refusal("session_not_found", 404)]],
)
def test_deleting_what_never_existed_is_an_error(player: Player, answers: list[Answer]) -> None:
    with pytest.raises(SessionNotFound):
        player.once(answers, lambda client: client.sessions.delete("ses_1"))


def test_a_deletion_that_finds_something_else_missing_is_an_error(player: Player) -> None:
    with pytest.raises(SessionNotFound):
        player.once([LOST, refusal("session_not_found", 404)], lambda client: session(client).files.delete("a"))
    with pytest.raises(FileNotFound):
        player.once([refusal("file_not_found", 404)], lambda client: session(client).files.delete("a"))


def test_the_caller_sets_the_number_of_retries(player: Player) -> None:
    for most in (0, 3):
        player.paused.clear()
        with pytest.raises(Unavailable):
            player.once([refusal("unavailable", 503)], REPEATABLE["get"][0], max_retries=most)
        assert len(player.paused) == most


def test_on_retry_is_called_before_each_wait(player: Player) -> None:
    told: list[tuple[str, int, float]] = []
    player.once(
        [refusal("unavailable", 503), refusal("unavailable", 503), Answer(body=SESSION)],
        REPEATABLE["get"][0],
        on_retry=lambda failure, attempt, delay: told.append((failure.code, attempt, delay)),
    )
    assert [(code, attempt) for code, attempt, _ in told] == [("unavailable", 1), ("unavailable", 2)]
    assert [delay for *_, delay in told] == player.paused


def test_an_upload_is_retried_from_its_beginning(player: Player, tmp_path: Any) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"0123456789" * 100_000)
    _, server = player.once(
        [refusal("unavailable", 503), Answer(body={"path": "a", "size": 1_000_000})],
        lambda client: session(client).files.upload(local, "a"),
    )
    assert [one.body == local.read_bytes() for one in server.asked] == [True, True]
    assert [one.headers["content-length"] for one in server.asked] == ["1000000", "1000000"]


@given(st.integers(1, 12), st.floats(0, 1), st.floats(0.01, 5))
def test_the_delay_doubles_up_to_a_bound_and_half_of_it_is_random(attempt: int, chance: float, first: float) -> None:
    failure = error_of({"code": "unavailable"}, 503)
    delay = delay_before(failure, attempt, RetryRules(20, first), repeatable=True, random=chance)
    full = min(first * 2 ** (attempt - 1), LONGEST_DELAY)
    assert delay is not None
    assert full / 2 <= delay <= full


@given(st.floats(0, LONGEST_RETRY_AFTER), st.floats(0, 1))
def test_no_delay_is_shorter_than_retry_after(after: float, chance: float) -> None:
    failure = error_of({"code": "rate_limit_exceeded"}, 429, None, after)
    delay = delay_before(failure, 1, RetryRules(2, 0.5), repeatable=False, random=chance)
    assert delay is not None
    assert delay >= after


def test_an_idempotency_conflict_of_a_call_without_a_key_is_not_retried() -> None:
    failure = IdempotencyInProgress("Still.", code="idempotency_in_progress")
    assert delay_before(failure, 1, RetryRules(2, 0.5), repeatable=False, random=0) is None


@pytest.mark.parametrize("what", ["waking", "fetching"])
def test_a_refusal_while_files_come_is_always_retried(what: str) -> None:
    shown = {"code": "unavailable", "details": {"retryAfter": 1, what: True}}
    assert delay_before(error_of(shown, 503), 1, RetryRules(2, 0.5), repeatable=False, random=0) == 1


def test_a_call_that_waits_for_a_restore_is_retried_and_then_tells_how_far_it_is(player: Player) -> None:
    told = {"waking": True, "reason": "restoring", "restoredBytes": 25, "totalBytes": 100}
    seen: list[float] = []
    answer = refusal("unavailable", 503, retryable=True, after=1, retryAfter=1, **told)
    with StandIn([answer] * 2) as server, pytest.raises(Unavailable) as caught:
        player.play(
            server.url,
            lambda client: client.sessions.open("ses_1").execute("1"),
            max_retries=1,
            on_retry=lambda error, attempt, delay: seen.append(delay),
        )
    assert caught.value.details == {"retryAfter": 1, **told}
    assert (caught.value.retry_after, seen) == (1.0, [1.0])


def test_a_stream_ended_by_a_stopping_server_is_retried_if_repeatable() -> None:
    failure = error_of({"code": "unavailable"}, None)
    assert delay_before(failure, 1, RetryRules(2, 0.5), repeatable=True, random=0) is not None
    assert delay_before(failure, 1, RetryRules(2, 0.5), repeatable=False, random=0) is None


def test_a_proxys_429_is_obeyed_and_the_call_retried(player: Player) -> None:
    answers = [Answer(429, "<html>Slow down</html>", {"Retry-After": "2"}), Answer(body=RESULT)]
    result, server = player.once(answers, execute)
    assert result.stdout == "1\n"
    assert len(server.asked) == 2
    assert player.paused == [2.0]


@pytest.mark.parametrize("after", ["nan", "inf", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_is_not_a_number_is_ignored(player: Player, after: str) -> None:
    told = Answer(503, {"error": {"code": "unavailable", "message": "No."}}, {"Retry-After": after})
    _, server = player.once([told, Answer(body=SESSION)], lambda client: client.sessions.get("ses_1"))
    assert len(server.asked) == 2
    assert 0 < player.paused[0] < 5
