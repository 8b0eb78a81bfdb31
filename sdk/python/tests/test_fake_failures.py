"""Scripted failures and recorded requests of the fake."""

import pytest
from buntime_sdk import (
    BuntimeError,
    ConnectionFailed,
    FileNotFound,
    RateLimitExceeded,
    RequestTimeout,
    Unavailable,
)
from buntime_sdk.testing import FakeBuntime


def test_a_failure_happens_as_often_as_scripted() -> None:
    told: list[tuple[str, float]] = []
    limited = RateLimitExceeded("Slow.", code="rate_limit_exceeded", retry_after=20)
    fake = FakeBuntime(on_retry=lambda failure, attempt, delay: told.append((failure.code, delay)))
    fake.on_execute("x", "done").fail("POST", "/execute", limited, times=2)
    assert fake.sessions.create().execute("x").stdout == "done"
    assert told == [("rate_limit_exceeded", 20.0)] * 2
    assert [request.path for request in fake.requests] == ["/sessions/create", *["/execute"] * 3]


@pytest.mark.parametrize("after_work", [False, True])
def test_a_lost_response_creates_no_second_session(*, after_work: bool) -> None:
    fake = FakeBuntime().fail("POST", "/sessions/create", ConnectionFailed("gone", begun=True), after_work=after_work)
    session = fake.sessions.create()
    assert [one.id for one in fake.sessions.list()] == [session.id]
    first, second = fake.requests[:2]
    assert first == second
    assert first.headers["idempotency-key"]


@pytest.mark.parametrize("path", ["/sessions/{id}", None])
def test_a_failure_matches_an_exact_path_or_a_pattern(path: str | None) -> None:
    fake = FakeBuntime(max_retries=0)
    session, other = fake.sessions.create(), fake.sessions.create()
    fake.fail("GET", path or f"/sessions/{session.id}", RequestTimeout("slow"))
    session.files.exists("x")
    other.wake()
    with pytest.raises(RequestTimeout, match="in time"):
        session.refresh()
    session.refresh()


def test_a_refused_terminal_is_retried() -> None:
    fake = FakeBuntime().fail(
        "GET", "/sessions/{id}/terminal", Unavailable("Soon.", code="unavailable", details={"waking": True})
    )
    session = fake.sessions.create()
    with session.terminal() as terminal:
        assert not terminal.resumed
    assert [request.path for request in fake.requests[1:]] == [f"/sessions/{session.id}/terminal"] * 2


def test_a_failure_is_scripted_by_code_and_an_unknown_code_is_refused() -> None:
    fake = FakeBuntime().fail("GET", "/files/read", "file_not_found")
    with pytest.raises(FileNotFound, match="Scripted"):
        fake.sessions.create().files.read("a")
    with pytest.raises(ValueError, match="no_such_code"):
        fake.fail("GET", "/files/read", "no_such_code")
    assert issubclass(FileNotFound, BuntimeError)


def test_requests_are_recorded_without_the_key() -> None:
    fake = FakeBuntime()
    session = fake.sessions.create()
    session.files.write("a", "b")
    request = fake.requests[-1]
    assert (request.method, request.path) == ("POST", "/files/write")
    assert request.body == {"sessionId": session.id, "path": "a", "content": "b"}
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("method", "path", "nearest"),
    [
        ("GET", "/nope/x", "GET /"),
        ("GET", "/file/read", "GET /files/read"),
        ("POST", "/files/read", "/files/read"),
        ("get", "/files/read", "GET /files/read"),
        ("POST", "/sessions", "POST /sessions/create"),
    ],
)
def test_a_failure_of_an_unknown_operation_is_refused_with_the_nearest(method: str, path: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"There is no {method} {path}. The nearest are .*{nearest}"):
        FakeBuntime().fail(method, path, "internal_error")


def test_every_call_of_the_sdk_can_be_made_to_fail() -> None:
    fake = FakeBuntime()
    for path in ("", "/sleep", "/wake", "/preview-token"):
        fake.fail("GET" if not path else "POST", f"/sessions/ses_1{path}", "internal_error")
    fake.fail("GET", "/sessions/{any}/terminal", "internal_error").fail("GET", "/files/{any}", "internal_error")
    fake.fail("POST", "/execute", "internal_error").fail("DELETE", "/contexts/delete", "internal_error")
