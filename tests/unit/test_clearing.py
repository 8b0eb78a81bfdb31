"""When the interval of a sandbox's set of unanswered connections changes, and that a failure is not the end of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest

from buntime.daemon.tasks import Tasks
from buntime.ports import SandboxGone
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network import clearing
from buntime.sandboxes.network.clearing import Clearing
from tests.waiting import eventually

BOTH_LATER = 0.05  # seconds: several looks


class Sandbox:
    """The network, the first process and what runs, of one sandbox."""

    def __init__(self, tasks: Tasks) -> None:
        self.runs = self.is_gone = False
        self.failures: list[Exception] = []
        self.changes: list[bool] = []
        self.looks = 0
        network: Any = self
        self.clearing = Clearing(network, tasks, self._init, self._runs)

    async def clear(self, _init: int, *, often: bool) -> None:
        self._may_fail()
        self.changes.append(often)

    def _init(self) -> AbstractContextManager[int]:
        @contextmanager
        def held() -> Iterator[int]:
            if self.is_gone:
                raise SandboxGone("it was killed")
            yield 0

        return held()

    async def _runs(self) -> bool:
        self.looks += 1
        self._may_fail()
        return self.runs

    def _may_fail(self) -> None:
        if self.failures:
            raise self.failures.pop()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "CAN_CLEAR", True)
    monkeypatch.setattr(clearing, "LATER", 0.001)
    monkeypatch.setattr(clearing, "LOOK_SECONDS", 0.002)


@asynccontextmanager
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Tasks() as tasks:
        one = Sandbox(tasks)
        yield one
        one.clearing.close()


async def test_a_short_run_changes_nothing() -> None:
    async with sandbox() as one:
        one.clearing.look()
        await eventually(lambda: one.looks == 1)
        await asyncio.sleep(BOTH_LATER)
        assert (one.looks, one.changes) == (1, []), "and nobody looks again"


async def test_it_is_often_while_something_runs() -> None:
    async with sandbox() as one:
        one.runs = True
        one.clearing.look()
        await eventually(lambda: one.changes == [True])
        one.runs = False
        await eventually(lambda: one.changes == [True, False])
        one.runs = True
        one.clearing.look()
        await eventually(lambda: one.changes == [True, False, True])


async def test_it_is_seldom_in_a_sandbox_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "LOOK_SECONDS", 1000)
    async with sandbox() as one:
        one.runs = True
        one.clearing.look()
        await eventually(lambda: one.changes == [True])
        one.runs = False
        one.clearing.rest()
        await eventually(lambda: one.changes == [True, False])


@pytest.mark.parametrize("failure", [HostCommandFailed("no answer"), OSError("too many open files")])
@pytest.mark.parametrize("often", [False, True])
async def test_a_change_that_failed_is_tried_again(failure: Exception, *, often: bool) -> None:
    async with sandbox() as one:
        one.clearing.doubt()
        one.runs = often
        one.failures = [failure, failure]
        await eventually(lambda: one.changes == [often])


async def test_of_an_earlier_server_s_it_knows_nothing() -> None:
    async with sandbox() as one:
        one.clearing.doubt()
        await eventually(lambda: one.changes == [False])


@pytest.mark.parametrize("ended", ["gone", "closed"])
async def test_nobody_looks_at_a_sandbox_that_is_gone(ended: str) -> None:
    async with sandbox() as one:
        one.runs = True
        one.clearing.look()
        await eventually(lambda: one.changes == [True])
        if ended == "gone":
            one.is_gone = True
        else:
            one.clearing.close()
        await asyncio.sleep(BOTH_LATER)
        looks = one.looks
        one.clearing.look()
        one.clearing.rest()
        await asyncio.sleep(BOTH_LATER)
        assert one.looks == looks
