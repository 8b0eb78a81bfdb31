"""What a later request with the same key gets when the work of the first one had begun, and was then lost."""

import asyncio
from dataclasses import replace

import pytest

from buntime.errors import InvalidRequest, Unavailable
from buntime.inside import NewContext, NewProcess
from buntime.ports import AnotherHost, Peer, Run, RunResult, SandboxGone
from buntime.session import Session
from buntime.testing.contexts import FakeContexts
from buntime.testing.processes import FakeProcesses
from buntime.testing.sandboxes import FakeSandbox, result
from buntime.web import app
from buntime.web.api import processes as api_processes
from buntime.web.api import sessions as api_sessions
from tests.app.serving import Api, serving
from tests.waiting import eventually


class Runs:
    """A runner whose runs fail."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.number = 0

    async def __call__(self, run: Run, sandbox: FakeSandbox) -> RunResult:
        self.number += 1
        raise self.failure


async def test_a_run_whose_sandbox_cannot_start_again_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(session: Session) -> None:
        raise Unavailable("This host cannot hold one more session now.")

    async with serving(runs := Runs(SandboxGone("it ended"))) as api:
        body = {"sessionId": await api.session(), "code": "1"}
        monkeypatch.setattr(api.sandboxes, "start", full)
        answers = [await api.call("POST", "/execute", body, Idempotency_Key="k") for _ in range(2)]
    assert [answer.refusal for answer in answers] == [(409, "invalid_state")] * 2
    assert "with the next request" in answers[0].error["message"]
    assert runs.number == 1


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Unavailable("no room for the answer"), 503), (RuntimeError("ours"), 500), (AnotherHost(Peer("b", "b:1")), 503)],
    ids=["unavailable", "unexpected", "moved"],
)
async def test_a_run_that_failed_in_the_middle_is_not_repeated(failure: Exception, status: int) -> None:
    async with serving(runs := Runs(failure)) as api:
        body = {"sessionId": await api.session(), "code": "1"}
        first, *others = [await api.call("POST", "/execute", body, Idempotency_Key="k") for _ in range(3)]
    assert first.status == status
    assert [answer.refusal for answer in others] == [(409, "outcome_unknown")] * 2
    assert runs.number == 1


async def test_a_run_that_the_session_refused_leaves_the_key_free() -> None:
    async with serving(runs := Runs(InvalidRequest("workingDir", "It is no directory."))) as api:
        body = {"sessionId": await api.session(), "code": "1"}
        for _ in range(2):
            answer = await api.call("POST", "/execute", body, Idempotency_Key="k")
            assert answer.refusal == (400, "invalid_request")
    assert runs.number == 2


ROTATE = "rotateWebhookSecret"  # whoever lost the secret has to rotate again in any case


def test_only_what_is_stored_with_its_answer_is_done_again_when_a_host_was_lost() -> None:
    again = {each.name for each in app.OPERATIONS if each.idempotent and each.is_repeatable}
    stored = {each.name for each in app.OPERATIONS if "answer" in each.handler.__code__.co_names}
    assert again - {ROTATE} == stored


async def test_a_context_that_failed_in_the_middle_is_not_created_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("POST", "/contexts/create", {"sessionId": await api.session()})
    create, made = FakeContexts.create, []

    async def lost(contexts: FakeContexts, new: NewContext) -> None:
        made.append(await create(contexts, new))
        raise Unavailable("no room for the answer")

    monkeypatch.setattr(FakeContexts, "create", lost)
    answers = [(await api.call(*asked, Idempotency_Key="k")).refusal for _ in range(2)]
    assert answers == [(503, "unavailable"), (409, "outcome_unknown")]
    assert len(made) == 1


async def test_a_start_that_goes_on_after_its_request_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    short, start = replace(api_processes.start_process, seconds=0.05), FakeProcesses.start
    started = []

    async def slow(processes: FakeProcesses, new: NewProcess) -> object:
        started.append(new.id)
        await eventually(lambda: api.store.answers)
        return await start(processes, new)

    monkeypatch.setattr(FakeProcesses, "start", slow)
    monkeypatch.setattr(app, "OPERATIONS", (*api_sessions.OPERATIONS, short))
    async with serving() as api:
        asked = ("POST", "/processes/start", {"sessionId": await api.session(), "command": "sleep 9"})
        assert (await api.call(*asked, Idempotency_Key="k")).refusal == (408, "execution_timeout")
        await eventually(lambda: api.store.answers)
        assert (await api.call(*asked, Idempotency_Key="k")).refusal == (409, "outcome_unknown")
    assert len(started) == 1


async def test_a_host_that_lapsed_during_a_run_does_not_tell_how_it_ended() -> None:
    async def lapses(run: Run, sandbox: FakeSandbox) -> RunResult:
        api.owners.acts = False
        return result(b"lost", exit_code=1, disk_full=True)

    async with serving(lapses) as api:
        asked = ("POST", "/execute", {"sessionId": await api.session(), "code": "1"})
        for headers in ({}, {"Idempotency_Key": "k"}):
            api.owners.acts = True
            answer = await api.call(*asked, **headers)
            assert (answer.refusal, b"lost" in answer.body) == ((503, "unavailable"), False)


async def test_a_run_that_the_server_cuts_as_it_stops_is_not_repeated() -> None:
    ran = asyncio.Event()

    async def stuck(run: Run, sandbox: FakeSandbox) -> RunResult:
        assert not ran.is_set(), "it runs again"
        ran.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(stuck) as api:
        asked = ("POST", "/execute", {"sessionId": await api.session(), "code": "1"})
        first = asyncio.create_task(api.call(*asked, Idempotency_Key="k"))
        await ran.wait()
        await api.operations.idempotency.cut()
        assert (await first).status == 503
        assert (await api.call(*asked, Idempotency_Key="k")).refusal == (409, "outcome_unknown")
