"""What a session that shares content with layers contains stays within its limit, and it is never refused wrongly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.plan import MB, Limits
from buntime.ports import Claimed, Run, RunResult, Sandbox
from buntime.sandboxes.kernel.volume import Volumes
from buntime.session import Session
from tests.contracts.test_sandboxes import REAL, LocalHost

pytestmark = REAL
LIMITS = Limits(memory=512, cpu=2.0, timeout=60, disk=512)
SETTLED = 5.0  # seconds


@pytest.fixture
async def host() -> AsyncIterator[LocalHost]:
    """One that keeps the quotas true, as a server does."""
    host = LocalHost()
    try:
        await host.reopen({})
        keeping = asyncio.create_task(local(host).keep_quotas())
        yield host
        await cancel_and_wait(keeping)
    finally:
        await host.close()


def local(host: LocalHost) -> Any:
    return host.sandboxes


def kernel(host: LocalHost) -> Volumes:
    volumes = local(host)._machinery.volumes
    assert isinstance(volumes, Volumes)
    return volumes


def session_of(claimed: Claimed) -> Session:
    ids = (claimed.sandbox.id, claimed.volume, claimed.image)
    return Session("ses_abc123def456ghi789", "acc_x", 0, 1 << 40, 0, LIMITS, *ids)


async def claim(host: LocalHost, layer: str = "") -> tuple[Session, Sandbox]:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS, layer=layer)
    return session_of(claimed), claimed.sandbox


async def ran(sandbox: Sandbox, command: str) -> RunResult:
    return await sandbox.run(Run(60, command=command))


async def says(sandbox: Sandbox, command: str) -> str:
    result = await ran(sandbox, command)
    assert result.exit_code == 0, (result, command)
    return result.stdout.decode()


def contained(host: LocalHost, volume: str) -> int:
    """Bytes of what the volume contains, on the disk."""
    kernel(host).sync()
    return kernel(host)._content_size(volume)


WRITE = "for i in $(seq {count}); do dd if=/dev/urandom of=f$i bs=1M count={each} {how} status=none || exit 1; done"


async def write(sandbox: Sandbox, how: str, each: int = 50, count: int = 6) -> None:
    """300 MB in six files, each 50 MB, unless told otherwise."""
    result = await ran(sandbox, WRITE.format(how=how, each=each, count=count))
    assert (result.exit_code, result.disk_full) == (0, False), result


async def test_after_a_capture_that_is_kept_every_file_can_be_rewritten_twice(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    for _ in range(2):
        await write(sandbox, "conv=notrunc")
    for _ in range(2):
        await write(sandbox, "")
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    again = await host.sandboxes.start(session)
    for how in ("conv=notrunc", "", "conv=notrunc", ""):
        await write(again, how)
    assert contained(host, session.volume) < 310 * MB
