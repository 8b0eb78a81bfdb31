"""A start adopts the sandboxes that run, even if some of them misbehave."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from buntime.errors import FileNotFound
from buntime.plan import Limits
from buntime.ports import SandboxGone
from buntime.sandboxes import local
from buntime.sandboxes import record as records
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.local import LocalSandboxes
from buntime.sandboxes.record import Record
from buntime.session import Session, State

LIMITS = Limits(memory=256, cpu=1.0, timeout=30, disk=32)
READY = 0.5  # seconds; replaces READY_SECONDS


async def _never() -> None:
    await asyncio.Event().wait()


PART = Part("abcd", IPv4Network("10.213.0.0/16"), (0,))


async def _at_once() -> None:
    return None


def _raising(failure: Exception) -> Callable[[], Awaitable[None]]:
    async def take_over() -> None:
        raise failure

    return take_over


@dataclass
class Box:
    """A fake sandbox with the parts that adopting uses."""

    record: Record
    take_over: Callable[[], Awaitable[None]] = _at_once
    killed: bool = False
    has_counted_spare: bool = True

    @property
    def id(self) -> str:
        return self.record.sandbox

    async def thaw(self) -> None:
        return None

    async def park(self) -> None:
        await asyncio.sleep(0.01)

    async def kill(self) -> None:
        self.killed = True

    def is_alive(self) -> bool:
        return not self.killed


@dataclass
class Host:
    """A host with the sandboxes that a killed server left."""

    home: Path
    ways: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    pool_size: int = 0
    boxes: dict[str, Box] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def sandboxes(self) -> LocalSandboxes:
        settings: Any = SimpleNamespace(
            data_dir=self.home,
            image=SimpleNamespace(id="img"),
            parked_limits=LIMITS,
            pool_size=self.pool_size,
            pool_prepared=0,
        )
        parents = SimpleNamespace(own={}, keep=lambda marks: 0)
        machinery: Any = SimpleNamespace(tasks=None, volumes=SimpleNamespace(all=set, parents=parents))
        machinery.cgroups = SimpleNamespace(sandboxes=set)
        machinery.made, machinery.packed = None, SimpleNamespace(keep=lambda layers: None)
        runtime: Any = SimpleNamespace(known=list)
        (self.home / "run").mkdir()
        sandboxes = LocalSandboxes(settings, PART, runtime, machinery)
        containers: Any = sandboxes._containers
        containers.running_init = lambda sandbox_id: 0
        containers.taken_up = self._taken_up

        containers.limit = lambda record, limits: None

        async def remove(sandbox_id: str) -> None:
            self.removed.append(sandbox_id)

        sandboxes._removed = remove  # type: ignore[method-assign]
        return sandboxes

    def leave(self, sandbox_id: str, session_id: str | None) -> None:
        directory = self.home / "sandboxes" / sandbox_id
        directory.mkdir(parents=True)
        records.write(directory, Record(sandbox_id, len(sandbox_id), "img", "secret", session_id, records.GENERATION))

    def _taken_up(self, record: Record, init: int) -> Box:
        box = Box(record, self.ways.get(record.sandbox, _at_once))
        self.boxes[record.sandbox] = box
        return box


def _session(sandbox_id: str) -> Session:
    session: Any = SimpleNamespace(
        id=f"ses_{sandbox_id}", sandbox=sandbox_id, volume=sandbox_id, state=State.ACTIVE, limits=LIMITS
    )
    return session  # type: ignore[no-any-return]


def _owned(host: Host, *sandbox_ids: str) -> dict[str, Session]:
    for sandbox_id in sandbox_ids:
        host.leave(sandbox_id, f"ses_{sandbox_id}")
    return {sandbox_id: _session(sandbox_id) for sandbox_id in sandbox_ids}


@pytest.mark.parametrize(
    "failure", [SandboxGone("x"), TimeoutError(), FileNotFound("x"), ZeroDivisionError(), OSError(5, "x")]
)
async def test_a_sandbox_that_fails_in_any_way_is_killed_and_the_others_are_adopted(
    tmp_path: Path, failure: Exception
) -> None:
    host = Host(tmp_path, {"bad": _raising(failure)})
    owned = _owned(host, "bad", *"abcdefgh")
    sandboxes = host.sandboxes()
    with capture_logs() as logs:
        await sandboxes.recover(owned)
    assert host.boxes["bad"].killed
    assert await sandboxes.get("bad") is None
    assert [name for name in owned if await sandboxes.get(name)] == list("abcdefgh")
    assert [entry["sandbox"] for entry in logs if entry["event"] == "sandbox_not_adopted"] == ["bad"]


@pytest.mark.parametrize("at_once", [local.STARTS_AT_ONCE, 256])
async def test_sandboxes_that_do_not_answer_delay_the_start_together_not_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", READY)
    monkeypatch.setattr(local, "ADOPTED_AT_ONCE", at_once, raising=False)
    monkeypatch.setattr(local, "ADOPT_SECONDS", READY / 100, raising=False)
    stopped = [f"s{n}" for n in range(100)]
    host = Host(tmp_path, dict.fromkeys(stopped, _never))
    owned = _owned(host, *stopped, "z")
    sandboxes = host.sandboxes()
    started = time.monotonic()
    await sandboxes.recover(owned)
    assert time.monotonic() - started < 4 * READY
    assert all(host.boxes[name].killed for name in stopped)
    assert await sandboxes.get("z") is not None


async def test_a_slow_sandbox_gets_as_long_as_a_starting_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", 20 * READY)
    monkeypatch.setattr(local, "ADOPT_SECONDS", READY / 100, raising=False)
    names = [f"s{n}" for n in range(50)]
    host = Host(tmp_path, dict.fromkeys(names, lambda: asyncio.sleep(READY)))
    owned, sandboxes = _owned(host, *names), host.sandboxes()
    await sandboxes.recover(owned)
    assert [name for name in names if not await sandboxes.get(name)] == []


async def test_no_more_are_parked_than_the_pool_holds(tmp_path: Path) -> None:
    host = Host(tmp_path, pool_size=3)
    for number in range(40):
        host.leave(f"p{number}", None)
    sandboxes = host.sandboxes()
    await sandboxes.recover({})
    assert len(sandboxes._pool) == 3
    assert len(host.removed) == 37
    assert {name for name, box in host.boxes.items() if box.killed} == set(host.removed)
