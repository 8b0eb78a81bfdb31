"""Idempotency keys: one request, one effect, and the first answer again."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers

pytestmark = pytest.mark.sandbox


def _key() -> str:
    return f"test-{uuid4()}"


def _same(first: Reply, again: Reply) -> None:
    assert (again.status, again.body) == (first.status, first.body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


def test_a_repeated_create_gives_the_first_session_again(paid: Client) -> None:
    key = _key()
    first = paid.create(idempotency_key=key, metadata={"a": 1, "b": 2})
    _same(first, paid.create(idempotency_key=key, metadata={"b": 2, "a": 1}))
    session = Session(paid, first.done()["sessionId"])
    assert paid.call("GET", "/sessions", query={"metadata.a": "1"}).done()["total"] == 1
    session.delete().done()
    _same(first, paid.create(idempotency_key=key, metadata={"a": 1, "b": 2}))
    session.look().refused(404, "session_not_found")


def test_a_repeated_execute_runs_once(session: Session) -> None:
    key = _key()
    first = session.execute(idempotency_key=key, command="echo ran | tee -a log")
    assert first.done()["filesWritten"] == ["log"]
    _same(first, session.execute(idempotency_key=key, command="echo ran | tee -a log"))
    assert session.text("log") == "ran\n"


def test_a_failed_run_and_a_missing_session_are_final_answers(session: Session) -> None:
    failed, missing = _key(), _key()
    _same(
        session.execute(idempotency_key=failed, command="echo x >> runs; exit 3"),
        session.execute(idempotency_key=failed, command="echo x >> runs; exit 3"),
    )
    assert session.text("runs") == "x\n"
    gone = Session(session.client, "ses_" + "0" * 18)
    first = gone.execute(idempotency_key=missing, command="true")
    first.refused(404, "session_not_found")
    _same(first, gone.execute(idempotency_key=missing, command="true"))


def test_another_request_with_the_same_key_is_refused(paid: Client, session: Session) -> None:
    key = _key()
    session.execute(idempotency_key=key, command="true").done()
    session.execute(idempotency_key=key, command="false").refused(422, "idempotency_key_reused")
    paid.create(idempotency_key=key).refused(422, "idempotency_key_reused")


def test_a_refused_request_leaves_the_key_free(paid: Client, free: Client) -> None:
    key = _key()
    paid.create(idempotency_key=key, ttl=1).refused(400, "invalid_request", "ttl")
    made = paid.create(idempotency_key=key, ttl=600).done()
    Session(paid, made["sessionId"]).delete().done()
    free.create(idempotency_key=key, resourceLimits={"cpu": 0.1}).refused(403, "forbidden")
    made = free.create(idempotency_key=key).done()
    Session(free, made["sessionId"]).delete().done()


def test_while_the_first_request_runs_a_second_is_told_so(session: Session) -> None:
    key = _key()
    slow = "touch begun; sleep 3; echo done"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(session.execute, idempotency_key=key, command=slow)
        while session.list().done()["total"] == 0:
            time.sleep(0.02)
        early = session.execute(idempotency_key=key, command=slow)
        early.refused(409, "idempotency_in_progress")
        assert int(early.headers["retry-after"]) >= 1
        assert early.error["retryable"] is True
        _same(first.result(), session.execute(idempotency_key=key, command=slow))


def test_many_creates_at_once_with_one_key_make_one_session(paid: Client) -> None:
    key, mark = _key(), _key()
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: paid.create(idempotency_key=key, metadata={"mark": mark}), range(24)))
    assert {reply.status for reply in replies} <= {200, 409}
    assert len({reply.body for reply in replies if reply.status == 200}) == 1
    listed = paid.call("GET", "/sessions", query={"metadata.mark": mark}).done()
    assert listed["total"] == 1
    Session(paid, listed["sessions"][0]["sessionId"]).delete().done()


def test_a_client_that_hung_up_finds_its_answer(session: Session) -> None:
    key, command = _key(), "echo x >> runs; sleep 2; echo done"
    body = {"sessionId": session.id, "command": command}
    with pytest.raises(TimeoutError):
        session.client.call("POST", "/execute", json_body=body, headers={"Idempotency-Key": key}, timeout=0.5)
    while (reply := session.execute(idempotency_key=key, command=command)).status == 409:
        time.sleep(0.1)
    assert (reply.done()["stdout"], reply.headers["idempotent-replayed"]) == ("done\n", "true")
    assert session.text("runs") == "x\n"


@pytest.mark.parametrize("key", ["x" * 256, "with space", "ü"])
def test_a_key_that_cannot_be_is_refused(paid: Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode().decode("latin-1")}
    paid.call("POST", "/sessions/create", headers=headers).refused(400, "invalid_request", "Idempotency-Key")


def test_an_endpoint_that_does_not_honour_a_key_refuses_it(session: Session) -> None:
    headers = {"Idempotency-Key": _key()}
    body = {"sessionId": session.id, "path": "a", "content": ""}
    for reply in (
        session.client.call("POST", "/files/write", json_body=body, headers=headers),
        session.client.call("PATCH", f"/sessions/{session.id}", json_body={}, headers=headers),
        session.client.call("DELETE", f"/sessions/{session.id}", headers=headers),
        session.client.call("GET", "/sessions", headers=headers),
    ):
        reply.refused(400, "invalid_request", "Idempotency-Key")


def test_keys_of_two_accounts_do_not_meet(paid: Client, free: Client) -> None:
    key = _key()
    one, two = (client.create(idempotency_key=key).done()["sessionId"] for client in (paid, free))
    assert one != two
    Session(paid, one).delete().done()
    Session(free, two).delete().done()


def test_answers_are_the_same_after_the_server_was_killed(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    create, run, deleted = _key(), _key(), _key()
    made = client.create(idempotency_key=create)
    session = Session(client, made.done()["sessionId"])
    ran = session.execute(idempotency_key=run, command="date +%N | tee -a log")
    gone = client.create(idempotency_key=deleted)
    Session(client, gone.done()["sessionId"]).delete().done()
    server.kill()
    server.start()
    _same(made, client.create(idempotency_key=create))
    _same(ran, session.execute(idempotency_key=run, command="date +%N | tee -a log"))
    _same(gone, client.create(idempotency_key=deleted))
    assert session.text("log") == ran.done()["stdout"]
    assert client.call("GET", "/sessions").done()["total"] == 1
