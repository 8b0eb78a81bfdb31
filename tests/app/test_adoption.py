"""A sandbox that an earlier server left, and whose guest is silent, holds up its own session alone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from buntime.errors import Unavailable
from buntime.lifecycle import observations, transitions
from buntime.ports import Sandbox
from buntime.session import State
from tests.app.serving import Api
from tests.app.sleeping import stored_of
from tests.waiting import eventually

SOON = 10.0  # seconds; a guard against a hang


@dataclass
class Silent:
    """The adoption of a session's sandbox, which does not end before the sandbox is killed."""

    sandbox: str
    is_killed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0  # times

    async def wait(self) -> None:
        self.asked += 1
        await self.is_killed.wait()


async def cannot_be_adopted() -> None:
    raise Unavailable("The session's host cannot act just now.", 5)


def not_adopted(api: Api, sandbox: str, adopt: Callable[[], Awaitable[None]]) -> None:
    get = api.sandboxes.get

    async def adopted(name: str) -> Sandbox | None:
        if name == sandbox:
            await adopt()
        return await get(name)

    api.sandboxes.get = adopted  # type: ignore[method-assign, assignment]


async def silent(api: Api, session: str) -> Silent:
    found = Silent((await stored_of(api, session)).sandbox)
    kill = api.sandboxes.kill

    async def killed(sandbox_id: str) -> None:
        await kill(sandbox_id)
        if sandbox_id == found.sandbox:
            found.is_killed.set()

    api.sandboxes.kill = killed  # type: ignore[method-assign]
    not_adopted(api, found.sandbox, found.wait)
    return found


@pytest.mark.parametrize("is_silent", [True, False])
async def test_another_session_of_the_account_starts_what_it_wants_within_the_limits(
    api: Api, *, is_silent: bool
) -> None:
    api.key = await api.account(name="few", processes_per_account=4, contexts_per_account=1, terminals_per_account=1)
    left, healthy = await api.session(), await api.session(services=[{"name": "web", "command": "serve"}])
    for _ in range(2):
        assert (await api.call("POST", "/processes/start", {"sessionId": left, "command": "run"})).status == 200
    sandbox = (await stored_of(api, left)).sandbox
    if is_silent:
        await silent(api, left)
    else:
        not_adopted(api, sandbox, cannot_be_adopted)
    of_healthy = {"sessionId": healthy}
    async with asyncio.timeout(SOON):
        started = await api.call("POST", "/processes/start", {**of_healthy, "command": "run"})
        created = await api.call("POST", "/contexts/create", of_healthy)
        service = await api.call("POST", f"/sessions/{healthy}/services/web/restart")
        assert [started.status, created.status, service.status] == [200, 200, 200], service.body
        refused = await api.call("POST", "/processes/start", {**of_healthy, "command": "run"})
        assert (refused.refusal, refused.error["details"]["scope"]) == ((429, "resource_limit_exceeded"), "account")
        run = {**of_healthy, "command": "run", "stream": True, "detach": True}
        assert b"resource_limit_exceeded" in (await api.call("POST", "/execute", run)).body
        live = await api.operations.entrance.find_open([("acc_few", sandbox)])
        assert live()["acc_few", "processes"] == 2
        await api.sandboxes.kill(sandbox)


@pytest.mark.parametrize("what", ["request", "wake", "idle", "deep-sleep", "keeper", "restore"])
async def test_a_delete_waits_for_nothing_that_waits_for_the_adoption(api: Api, what: str) -> None:
    session = await api.session()
    taken = await api.call("POST", f"/sessions/{session}/snapshots")
    if what == "wake":
        await api.call("POST", f"/sessions/{session}/sleep")
    left = await silent(api, session)
    calls: dict[str, tuple[str, object]] = {
        "request": ("/execute", {"sessionId": session, "command": "echo"}),
        "restore": (f"/sessions/{session}/restore", {"snapshotId": taken.json["snapshotId"]}),
        "wake": (f"/sessions/{session}/wake", None),
        "idle": (f"/sessions/{session}/sleep", {"depth": "idle"}),
        "deep-sleep": (f"/sessions/{session}/sleep", {"depth": "deep-sleep"}),
    }
    if what == "keeper":
        api.clock.now += 300
        keeper = api.keeper(idle_after=300)
        await keeper.tick()
        waiting = asyncio.ensure_future(eventually(lambda: keeper.at_rest))
    else:
        path, body = calls[what]
        waiting = asyncio.ensure_future(eventually_answered(api, path, body))
    await eventually(lambda: left.asked)
    async with asyncio.timeout(SOON):
        assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
        await waiting
    assert left.is_killed.is_set()
    await eventually(lambda: session not in api.store.sessions)
    assert not api.sandboxes.running


async def eventually_answered(api: Api, path: str, body: object) -> None:
    assert (await api.call("POST", path, body)).status == 404


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_sleep_waits_for_the_adoption_for_a_limited_time(
    api: Api, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    monkeypatch.setattr(transitions, "ADOPT_SECONDS", 0.05)
    session = await api.session()
    left = await silent(api, session)
    refused = await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
    assert refused.refusal == (503, "unavailable")
    left.is_killed.set()  # it is adopted
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})
    assert (slept.status, slept.json["state"]) == (200, depth)


async def test_a_patch_waits_for_no_guest_and_its_rules_are_in_force(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        observations, "OBSERVE_SECONDS", 0.05
    )  # the answer has its counts, which the guest is asked for
    session = await api.session()
    left = await silent(api, session)
    body = {"network": {"egress": "none"}, "services": [{"name": "web", "command": "serve"}]}
    async with asyncio.timeout(SOON):
        assert (await api.call("PATCH", f"/sessions/{session}", body)).status == 200
    sandbox = api.sandboxes.running[left.sandbox]
    assert sandbox.network.egress == "none"
    assert not await sandbox.services.list()
    left.is_killed.set()  # it is adopted
    await eventually(lambda: sandbox.processes.live)


async def test_what_an_adoption_does_to_one_session_delays_no_suspension_of_others(api: Api) -> None:
    stuck = [await api.session() for _ in range(5)]
    good = await api.session()
    lefts = [await silent(api, session) for session in stuck]
    api.clock.now += 300
    await api.keeper(idle_after=300).tick()
    await eventually(lambda: api.store.sessions[good].state is State.IDLE, seconds=SOON)
    for left in lefts:
        left.is_killed.set()
