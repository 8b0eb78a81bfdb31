"""A guest that nobody asks rests: the server closes its connection, because Bun wakes each second while it has one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.plan import Limits
from buntime.ports import Run, Sandbox
from buntime.sandboxes import local
from tests.contracts.test_sandboxes import REAL, LocalHost
from tests.sandboxes.processes import processes_in
from tests.waiting import eventually

pytestmark = REAL
SESSION = "ses_abc123def456ghi789"
LIMITS = Limits(memory=512, cpu=2.0, timeout=60, disk=512)
QUIET_SECONDS = 6.0
FEW = 3  # wake-ups meanwhile; with a connection they are more than one a second


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHost]:
    monkeypatch.setattr(local, "REST_SECONDS", 0.5)
    monkeypatch.setattr(local, "REST_LOOK_SECONDS", 0.1)
    host = LocalHost()
    try:
        await host.reopen({})
        sandboxes: Any = host.sandboxes
        keeping = asyncio.create_task(sandboxes.keep_quiet())
        yield host
        await cancel_and_wait(keeping)
    finally:
        await host.close()


def guest_of(host: LocalHost, sandbox: Sandbox) -> Path:
    """Its directory in /proc."""
    for process in processes_in(host, sandbox):
        with suppress(OSError):
            if (process / "cmdline").read_bytes() == b"/run/guest/guest\0":
                return process
    raise AssertionError("no guest")


def wakes(guest: Path) -> int:
    (line,) = (line for line in (guest / "status").read_text().splitlines() if line.startswith("voluntary_ctxt"))
    return int(line.split()[1])


async def said(sandbox: Sandbox, command: str) -> str:
    return (await sandbox.run(Run(60, command=command))).stdout.decode()


async def test_a_guest_that_nobody_asks_does_not_wake(host: LocalHost) -> None:
    sandbox: Any = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    assert await said(sandbox, "echo 1") == "1\n"
    guest, connection = guest_of(host, sandbox), sandbox.packets()[0]
    await eventually(lambda: sandbox.packets()[0] != connection, "the connection to be closed")
    await asyncio.sleep(3)  # it collects garbage once
    before = wakes(guest)
    await asyncio.sleep(QUIET_SECONDS)
    assert wakes(guest) - before <= FEW
    assert await said(sandbox, "echo 2") == "2\n"


async def test_a_run_that_says_nothing_keeps_its_connection(host: LocalHost) -> None:
    sandbox: Any = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    assert await said(sandbox, "sleep 2; echo 1") == "1\n"
    connection = sandbox.packets()[0]
    await eventually(lambda: sandbox.packets()[0] != connection, "the connection to be closed")
    assert await asyncio.gather(*(said(sandbox, f"echo {each}") for each in range(5))) == [f"{n}\n" for n in range(5)]


async def test_a_frozen_sandbox_keeps_its_connection_for_the_next_request(host: LocalHost) -> None:
    sandbox: Any = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    await said(sandbox, "true")
    await sandbox.freeze()
    connection = sandbox.packets()[0]
    await asyncio.sleep(1.5)
    assert sandbox.packets()[0] == connection
    await sandbox.thaw()
    await eventually(lambda: sandbox.packets()[0] != connection, "the connection to be closed")
