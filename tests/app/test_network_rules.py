"""The network rules in force are those that the session has, whatever fails and whatever runs at the same time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from buntime.errors import CommitUnknown, Unavailable
from buntime.lifecycle import restricting
from buntime.session import Network, Session, State
from buntime.testing.sandboxes import at_once
from tests.app.serving import Answer, Api
from tests.app.sleeping import deep_sleep, stored_of
from tests.waiting import eventually

NONE = {"egress": "none"}
ALLOW = {"allow": ["192.0.2.0/24"]}

type Repair = Callable[[], None]
type Fault = Callable[[Api, str], Repair]


async def patch(api: Api, session: str, **fields: Any) -> Answer:
    return await api.call("PATCH", f"/sessions/{session}", fields)


async def in_force(api: Api, session: str) -> Network:
    """Returns the rules of the session's sandbox, which runs."""
    return api.sandboxes.running[(await stored_of(api, session)).sandbox].network


async def wanted(api: Api, session: str) -> Network:
    return (await stored_of(api, session)).network


def replace(api: Api, **methods: Any) -> None:
    """Replaces methods of the store."""
    for name, method in methods.items():
        setattr(api.store, name, method)


# --- what fails ---


def kernel_refuses(api: Api, sandbox: str) -> Repair:
    async def refuse(network: Network) -> None:
        raise Unavailable("The session's network rules could not be put in force just now.")

    api.sandboxes.before_rules = refuse

    def repair() -> None:
        api.sandboxes.before_rules = at_once

    return repair


def sandbox_cannot_be_adopted(api: Api, sandbox: str) -> Repair:
    api.sandboxes.out_of_reach.add(sandbox)
    return lambda: api.sandboxes.out_of_reach.discard(sandbox)


def commit_is_unknown(api: Api, sandbox: str) -> Repair:
    change = api.store.change_session

    async def lost(*given: Any, **named: Any) -> None:
        await change(*given, **named)
        raise CommitUnknown("The server lost its database.")

    replace(api, change_session=lost)
    return lambda: replace(api, change_session=change)


def store_is_lost_after_the_commit(api: Api, sandbox: str) -> Repair:
    change, read = api.store.change_session, api.store.get_session

    async def unreadable(session_id: str) -> None:
        raise Unavailable("The database is away.")

    async def lost(*given: Any, **named: Any) -> Session:
        stored = await change(*given, **named)
        replace(api, get_session=unreadable)
        return stored

    replace(api, change_session=lost)
    return lambda: replace(api, change_session=change, get_session=read)


FAULTS = [kernel_refuses, sandbox_cannot_be_adopted, commit_is_unknown, store_is_lost_after_the_commit]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_repeated_patch_puts_the_rules_that_a_failed_one_stored(api: Api, fault: Fault) -> None:
    session = await api.session()
    repair = fault(api, (await stored_of(api, session)).sandbox)
    for _ in range(2):
        refused = await patch(api, session, network=NONE)
        if refused.status == 200:  # the commit alone had failed
            break
        assert refused.refusal == (503, "unavailable")
        assert refused.error["retryable"]
    repair()
    assert (await patch(api, session, network=NONE)).status == 200
    assert await in_force(api, session) == await wanted(api, session) == Network(egress="none")


@pytest.mark.parametrize("fault", FAULTS)
async def test_rules_that_a_failed_patch_stored_are_put_without_a_repeat(
    api: Api, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(restricting, "AGAIN_SECONDS", 0.01)
    session = await api.session()
    sandbox = api.sandboxes.running[(await stored_of(api, session)).sandbox]
    repair = fault(api, sandbox.id)
    assert (await patch(api, session, network=NONE)).refusal == (503, "unavailable")
    await asyncio.sleep(0.03)  # some tries in vain, or one that succeeds
    repair()
    await eventually(lambda: sandbox.network == Network(egress="none"))
    await eventually(lambda: not api.lifecycle.restricting.is_late(session))


async def test_rules_come_before_all_else_that_a_patch_does(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await api.session(preview={"ports": [3000]})

    async def fail(sandbox_id: str) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(api.sandboxes, "disconnect", fail)
    answer = await patch(api, session, network=NONE, preview={"visibility": "private"})
    assert answer.refusal == (503, "unavailable")
    assert await in_force(api, session) == Network(egress="none")


async def test_a_patch_of_something_else_needs_no_rules(api: Api) -> None:
    session = await api.session()
    kernel_refuses(api, "")
    assert (await patch(api, session, metadata={"a": 1})).status == 200


async def test_a_create_whose_rules_are_refused_leaves_nothing(api: Api) -> None:
    repair = kernel_refuses(api, "")
    assert (await api.call("POST", "/sessions/create", {"network": NONE})).refusal == (503, "unavailable")
    assert not api.sandboxes.running
    assert not await api.store.all_sessions()
    repair()
    assert await in_force(api, await api.session(network=NONE)) == Network(egress="none")


async def test_a_suspended_session_takes_rules(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {})
    assert (await patch(api, session, network=NONE)).status == 200
    assert await in_force(api, session) == Network(egress="none")
    assert (await stored_of(api, session)).state is State.IDLE


async def test_a_suspended_session_does_not_wake_before_its_stored_rules_are_in_force(api: Api) -> None:
    session = await api.session()
    await api.call("POST", f"/sessions/{session}/sleep", {})
    repair = kernel_refuses(api, "")
    assert (await patch(api, session, network=NONE)).refusal == (503, "unavailable")
    assert (await api.call("POST", f"/sessions/{session}/wake")).refusal == (503, "unavailable")
    assert api.sandboxes.running[(await stored_of(api, session)).sandbox].frozen
    repair()
    assert (await api.call("POST", f"/sessions/{session}/wake")).status == 200
    assert await in_force(api, session) == Network(egress="none")


async def test_a_sandbox_that_ends_while_its_rules_are_put_is_replaced_by_one_that_has_them(api: Api) -> None:
    session = await api.session()
    sandbox = (await stored_of(api, session)).sandbox

    async def end(network: Network) -> None:
        await api.sandboxes.kill(sandbox)

    api.sandboxes.before_rules = end
    assert (await patch(api, session, network=NONE)).status == 200
    assert (await api.call("POST", f"/sessions/{session}/wake")).status == 200
    assert await in_force(api, session) == Network(egress="none")


async def test_a_session_that_ends_or_moves_is_not_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricting, "AGAIN_SECONDS", 0.01)
    ended, lapsed = await api.session(), await api.session()
    repair = kernel_refuses(api, "")
    for session in (ended, lapsed):
        assert (await patch(api, session, network=NONE)).refusal == (503, "unavailable")
    assert (await api.call("DELETE", f"/sessions/{ended}")).status == 200
    await eventually(lambda: not api.lifecycle.restricting.is_late(ended))
    api.owners.acts = False  # it still has the session
    repair()
    await asyncio.sleep(0.05)
    assert api.lifecycle.restricting.is_late(lapsed)
    api.owners.acts = True
    await eventually(lambda: not api.lifecycle.restricting.is_late(lapsed))
    assert await in_force(api, lapsed) == Network(egress="none")


# --- what runs at the same time ---


class Slow:
    """Holds the first rules that are put, until the test lets them go. `put`: all that were put, in order."""

    def __init__(self, api: Api) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.put: list[Network] = []
        api.sandboxes.before_rules = self._wait

    async def _wait(self, network: Network) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.opened.wait()
        self.put.append(network)


def next_change(api: Api) -> asyncio.Event:
    """Returns an event that is set when the next change of a session is stored."""
    change, stored = api.store.change_session, asyncio.Event()

    async def announced(*given: Any, **named: Any) -> Session:
        after = await change(*given, **named)
        stored.set()
        return after

    replace(api, change_session=announced)
    return stored


async def test_two_patches_at_once_end_with_the_stored_rules_in_force(api: Api) -> None:
    session = await api.session()
    slow = Slow(api)
    async with asyncio.timeout(10):
        first = asyncio.create_task(patch(api, session, network=NONE))
        await slow.reached.wait()
        stored = next_change(api)
        second = asyncio.create_task(patch(api, session, network=ALLOW))
        await stored.wait()
        await api.call("GET", f"/sessions/{session}")  # the second one could put its rules meanwhile
        slow.opened.set()
        answers = [await first, await second]
    assert [answer.status for answer in answers] == [200, 200]
    assert await in_force(api, session) == await wanted(api, session) == Network(allow=("192.0.2.0/24",))


async def test_a_patch_while_a_wake_puts_rules_is_answered_when_no_others_follow(api: Api) -> None:
    """The wake finds rules that were stored while its sandbox started. Others are stored while it puts those."""
    session = await api.session()
    await deep_sleep(api, session)
    slow, change = Slow(api), api.store.change_session

    async def other_first(*given: Any, **named: Any) -> Session:
        replace(api, change_session=change)
        assert (await patch(api, session, network=NONE)).status == 200
        return await change(*given, **named)

    replace(api, change_session=other_first)
    async with asyncio.timeout(10):
        waking = asyncio.create_task(api.call("POST", f"/sessions/{session}/wake"))
        await slow.reached.wait()
        stored = next_change(api)
        patching = asyncio.create_task(patch(api, session, network=ALLOW))
        await stored.wait()
        await api.call("GET", f"/sessions/{session}")
        assert not patching.done()
        slow.opened.set()
        assert (await patching).status == (await waking).status == 200
    assert slow.put[0] == Network(egress="none")
    assert set(slow.put[1:]) == {Network(allow=("192.0.2.0/24",))}
    assert await in_force(api, session) == await wanted(api, session)


async def test_a_patch_waits_for_no_transition(api: Api) -> None:
    session = await api.session()
    async with asyncio.timeout(10), api.lifecycle.holds.lock(session):
        assert (await patch(api, session, network=NONE)).status == 200
    assert await in_force(api, session) == Network(egress="none")
