"""The contract of `inside.Services`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from buntime.ids import new_process_id
from buntime.inside import NewService, Services, ServiceStatus
from buntime.ports import Sandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, FakeHost, Host, LocalHost

SECONDS = 20  # a guard against a hang
FOREVER = "exec sleep 1000"


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    host: Host = FakeHost() if request.param == "fake" else LocalHost()
    try:
        await host.reopen({})
        yield (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    finally:
        await host.close()


def new(name: str, command: str = FOREVER, revision: str = "1", **fields: object) -> NewService:
    return NewService(new_process_id(1), name, revision, command, **{"restart": "always", **fields})  # type: ignore[arg-type]


async def status_of(services: Services, name: str) -> ServiceStatus:
    return next(status for status in await services.list() if status.name == name)


async def until(services: Services, name: str, is_so: Callable[[ServiceStatus], bool]) -> ServiceStatus:
    async with asyncio.timeout(SECONDS):
        while not is_so(status := await status_of(services, name)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return status


async def test_a_started_service_is_listed_with_its_process(sandbox: Sandbox) -> None:
    assert await sandbox.services.list() == []
    wanted = new("web")
    started = await sandbox.services.start(wanted)
    assert (started.name, started.revision, started.state, started.process) == ("web", "1", "running", wanted.id)
    assert (started.restarts, started.exit_code, started.exited_at) == (0, None, None)
    assert await sandbox.services.list() == [started]
    process = await sandbox.processes.get(wanted.id)
    assert (process.status, process.name, process.command) == ("running", "web", FOREVER)
    assert sandbox.live("processes") == 1


async def test_one_that_is_never_started_again_keeps_its_exit_code(sandbox: Sandbox) -> None:
    wanted = new("once", "exit 7", restart="never")
    await sandbox.services.start(wanted)
    status = await until(sandbox.services, "once", lambda status: status.state == "exited")
    assert (status.exit_code, status.pid, status.restarts) == (7, None, 0)
    async with asyncio.timeout(SECONDS):
        while (await sandbox.processes.get(wanted.id)).status == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await sandbox.processes.get(wanted.id)).exit_code == 7


async def test_a_stopped_one_can_be_started_as_another(sandbox: Sandbox) -> None:
    await sandbox.services.start(new("web"))
    await sandbox.services.stop("web")
    stopped = await status_of(sandbox.services, "web")
    assert (stopped.state, stopped.pid, stopped.exit_code) == ("stopped", None, 143)
    await sandbox.services.stop("web")
    started = await sandbox.services.start(new("web", revision="2"))
    assert (started.state, started.revision) == ("running", "2")
    assert len(await sandbox.services.list()) == 1


async def test_a_forgotten_one_is_not_listed(sandbox: Sandbox) -> None:
    await sandbox.services.start(new("web"))
    await sandbox.services.stop("web", forget=True)
    assert await sandbox.services.list() == []
    await sandbox.services.stop("web", forget=True)
    assert sandbox.live("processes") == 0
