"""What a host holds is compared with the rows, when it joins and while it goes on."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import pytest

from buntime.fleet.comparing import Comparing, HeldSandbox
from buntime.fleet.members import Membership
from buntime.fleet.ownership import Ownership, Standing
from buntime.fleet.rows import Rows
from buntime.session import State

ME = Membership("a", 1)
SECONDS = 5.0  # far more than a comparison takes


class Held:
    """`comparing.Held`, and `Rows` as far as they are asked."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, HeldSandbox] = {}
        self.rows: dict[str, Ownership] = {}
        self.frozen: list[str] = []
        self.questions = 0

    def hold(self, sandbox: str, session: str, volume: str) -> None:
        self.sandboxes[sandbox] = HeldSandbox(session, volume)

    def row(self, session: str, host: str | None, volume: str) -> None:
        self.rows[session] = Ownership(session, host, 1, State.ACTIVE, volume)

    def all(self) -> Mapping[str, HeldSandbox]:
        return dict(self.sandboxes)

    def keep_frozen(self, sandboxes: Collection[str]) -> None:
        self.frozen.extend(sandboxes)

    async def report(self, me: Membership, held: Collection[str]) -> Sequence[Ownership]:
        self.questions += 1
        return [row for session, row in self.rows.items() if session in held]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def comparing(held: Held) -> Comparing:
    return Comparing(cast("Rows", held), held, asyncio.Event())


@contextmanager
def stuck_threads() -> Iterator[None]:
    """All threads of the default executor wait, as for processes that are frozen."""
    thaw, executor = threading.Event(), ThreadPoolExecutor(2)
    for _ in range(4):
        executor.submit(thaw.wait)
    asyncio.get_running_loop().set_default_executor(executor)
    try:
        yield
    finally:
        thaw.set()


async def test_a_comparison_waits_for_no_thread_that_frozen_sandboxes_hold_up(held: Held, comparing: Comparing) -> None:
    """The frozen ones thaw only after it."""
    held.hold("sb_lost", "ses_moved", "vol_one")
    held.row("ses_moved", "b", "vol_two")
    with stuck_threads():
        async with asyncio.timeout(SECONDS):
            await comparing.compare(ME)
            found = await comparing.misplaced(ME)
    assert held.frozen == ["sb_lost"]
    assert found["sb_lost"].standing is Standing.MOVED


@pytest.mark.parametrize("older", ["sb_a", "sb_z"])
async def test_a_join_in_the_middle_of_a_restore_gives_up_what_was_before_alone(
    held: Held, comparing: Comparing, older: str
) -> None:
    """The sandbox on the files from before is still being removed."""
    for sandbox, volume in sorted([(older, "vol_before"), ("sb_m", "vol_restored")]):
        held.hold(sandbox, "ses_ours", volume)
    held.row("ses_ours", "a", "vol_restored")
    await comparing.compare(ME)
    assert held.frozen == [older]


async def test_each_sandbox_that_does_not_belong_here_is_found_with_one_question(
    held: Held, comparing: Comparing
) -> None:
    held.hold("sb_ours", "ses_ours", "vol_ours")
    held.row("ses_ours", "a", "vol_ours")
    held.hold("sb_theirs", "ses_theirs", "vol_theirs")
    held.row("ses_theirs", "b", "vol_theirs")
    held.hold("sb_nobodys", "ses_nobodys", "vol_nobodys")
    held.row("ses_nobodys", None, "vol_nobodys")
    held.hold("sb_before", "ses_ours", "vol_before")
    held.hold("sb_gone", "ses_gone", "vol_gone")
    found = await comparing.misplaced(ME)
    assert {sandbox: one.standing for sandbox, one in found.items()} == {
        "sb_theirs": Standing.MOVED,
        "sb_nobodys": Standing.MOVED,
        "sb_before": Standing.OTHER_FILES,
        "sb_gone": Standing.GONE,
    }
    assert held.questions == 1
    assert not held.frozen


async def test_a_host_that_holds_nothing_asks_nothing(held: Held, comparing: Comparing) -> None:
    assert not await comparing.misplaced(ME)
    assert held.questions == 0
