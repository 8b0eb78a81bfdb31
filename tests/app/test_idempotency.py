import asyncio

import pytest

from tests.app.serving import Api
from tests.waiting import eventually

CREATE = "/sessions/create"


async def test_a_repeated_key_gets_the_first_answer_and_one_session(api: Api) -> None:
    first = await api.call("POST", CREATE, {"ttl": 300, "metadata": {}}, Idempotency_Key="k")
    api.clock.now += 5
    again = await api.call("POST", CREATE, b' {"metadata":{} , "ttl":300}', Idempotency_Key="k")
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)
    assert len(api.store.sessions) == 1


async def test_the_first_answer_outlives_the_session(api: Api) -> None:
    first = await api.call("POST", CREATE, Idempotency_Key="k")
    await api.call("DELETE", f"/sessions/{first.json['sessionId']}")
    again = await api.call("POST", CREATE, Idempotency_Key="k")
    assert again.body == first.body


async def test_the_answer_is_stored_together_with_the_session(api: Api) -> None:
    first = await api.call("POST", CREATE, Idempotency_Key="k")
    (stored,) = api.store.answers.values()
    assert (stored.status, stored.body) == (200, first.body)


async def test_another_request_with_the_key_is_refused(api: Api) -> None:
    session = await api.session()
    await api.call("POST", CREATE, {"ttl": 300}, Idempotency_Key="k")
    for path, body in ((CREATE, {"ttl": 301}), ("/execute", {"sessionId": session, "code": "1"})):
        answer = await api.call("POST", path, body, Idempotency_Key="k")
        assert answer.refusal == (422, "idempotency_key_reused")


async def test_two_accounts_may_use_the_same_key(api: Api) -> None:
    other = await api.account(name="other")
    one = await api.call("POST", CREATE, Idempotency_Key="k")
    two = await api.call("POST", CREATE, key=other, Idempotency_Key="k")
    assert one.json["sessionId"] != two.json["sessionId"]


async def test_of_two_requests_at_once_one_does_the_work(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session, find, reads = await api.session(), api.store.find_answer, 0
    read, answered = asyncio.Event(), asyncio.Event()

    async def slow(account_id: str, key: str) -> object:
        nonlocal reads
        reads += 1
        found = await find(account_id, key)
        if reads == 1:
            read.set()
            await answered.wait()
        return found

    monkeypatch.setattr(api.store, "find_answer", slow)
    start = ("POST", "/processes/start", {"sessionId": session, "command": "sleep 100"})
    first = asyncio.create_task(api.call(*start, Idempotency_Key="k"))
    await read.wait()
    second = await api.call(*start, Idempotency_Key="k")
    answered.set()
    assert ((await first).status, second.status) == (200, 409)
    assert len((await api.call("GET", f"/processes/list?sessionId={session}")).json["processes"]) == 1
    answers = await asyncio.gather(*(api.call(*start, Idempotency_Key="k") for _ in range(2)))
    assert [answer.status for answer in answers] == [200, 200]


async def test_while_the_first_request_runs_the_second_is_told_to_wait(api: Api) -> None:
    api.sandboxes.open_for_claims.clear()
    first = asyncio.create_task(api.call("POST", CREATE, Idempotency_Key="k"))
    await eventually(lambda: api.sandboxes.claims_waiting)
    second = await api.call("POST", CREATE, Idempotency_Key="k")
    assert second.refusal == (409, "idempotency_in_progress")
    assert second.headers["Retry-After"] == "1"
    api.sandboxes.open_for_claims.set()
    made = await first
    assert (await api.call("POST", CREATE, Idempotency_Key="k")).body == made.body


async def test_a_client_that_hangs_up_finds_its_session_on_retry(api: Api) -> None:
    api.sandboxes.open_for_claims.clear()
    first = asyncio.create_task(api.call("POST", CREATE, Idempotency_Key="k"))
    await eventually(lambda: api.sandboxes.claims_waiting)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    api.sandboxes.open_for_claims.set()
    await eventually(lambda: api.store.answers)
    again = await api.call("POST", CREATE, Idempotency_Key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert list(api.store.sessions) == [again.json["sessionId"]]


async def test_a_run_is_not_repeated(api: Api) -> None:
    body = {"sessionId": await api.session(), "command": "touch once"}
    first = await api.call("POST", "/execute", body, Idempotency_Key="k")
    volume = next(iter(api.sandboxes.volumes.values()))
    volume.files.clear()
    again = await api.call("POST", "/execute", body, Idempotency_Key="k")
    assert again.body == first.body
    assert not volume.files


async def test_a_final_failure_is_replayed(api: Api) -> None:
    body = {"sessionId": "ses_" + "0" * 18, "code": "1"}
    first = await api.call("POST", "/execute", body, Idempotency_Key="k")
    again = await api.call("POST", "/execute", body, Idempotency_Key="k")
    assert first.refusal == (404, "session_not_found")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status, again.body) == (404, first.body)


async def test_a_request_that_did_no_work_or_was_undone_leaves_the_key_free(api: Api) -> None:
    for refused in ({"ttl": 1}, {"tll": 1}):
        assert (await api.call("POST", CREATE, refused, Idempotency_Key="k")).status == 400
    capacity, api.sandboxes.capacity = api.sandboxes.capacity, 0
    assert (await api.call("POST", CREATE, Idempotency_Key="k")).status == 503
    api.sandboxes.capacity = capacity
    assert (await api.call("POST", CREATE, Idempotency_Key="k")).status == 200


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\tb"])
async def test_a_malformed_key_is_invalid(api: Api, key: str) -> None:
    answer = await api.call("POST", CREATE, Idempotency_Key=key)
    assert answer.refusal == (400, "invalid_request")
    assert answer.error["details"]["field"] == "Idempotency-Key"


async def test_a_key_of_255_characters_is_accepted(api: Api) -> None:
    assert (await api.call("POST", CREATE, Idempotency_Key="~" * 255)).status == 200


async def test_an_endpoint_without_idempotency_refuses_a_key(api: Api) -> None:
    session = await api.session()
    for method, path in (
        ("GET", "/sessions"),
        ("DELETE", f"/sessions/{session}"),
        ("PATCH", f"/sessions/{session}"),
        ("POST", "/files/write"),
    ):
        answer = await api.call(method, path, Idempotency_Key="k")
        assert answer.refusal == (400, "invalid_request")
        assert answer.error["details"]["field"] == "Idempotency-Key"
