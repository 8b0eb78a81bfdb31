"""A run whose client leaves just before the answer is ready."""

import asyncio
from typing import Any

from buntime.daemon.tasks import cancel_and_wait
from buntime.ports import Run
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost
from tests.waiting import eventually

pytestmark = REAL


async def test_it_leaves_nothing_while_the_server_looks_whether_the_disk_is_full(host: LocalHost) -> None:
    sandbox: Any = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    looking = asyncio.Event()

    async def look(_since: float) -> Any:
        looking.set()
        return await asyncio.get_running_loop().create_future()

    sandbox._runs._disk_is_full = look
    running = asyncio.create_task(sandbox.run(Run(10, command="sleep 100 & false")))
    await looking.wait()
    assert sandbox._launcher.live("run") == 0
    await cancel_and_wait(running)
    await eventually(lambda: not set(sandbox._machinery.cgroups.runs(sandbox.id)) - set(sandbox._launcher.parked()))
    assert not await sandbox._launcher.runs_something()
