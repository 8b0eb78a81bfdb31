"""Files of a session cannot keep its guest from starting. They can keep it from being made ready, which reaches no
other session."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import Unavailable
from buntime.ports import Claimed
from buntime.sandboxes import sandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost, layer_of
from tests.sandboxes.test_root import says
from tests.waiting import eventually

pytestmark = REAL
PATIENCE = 60.0  # seconds; a guard against a hang
EVIL = "acc_evil"

# Programs on Bun read these when they start, and the guest was one. Nobody ever writes into the FIFO.
SILENT = """
cat > /silent.js <<'END'
Bun.listen({ hostname: "0.0.0.0", port: 49, socket: { data() {} } });
await new Promise(() => {});
END
echo 'preload = ["/silent.js"]' > /bunfig.toml
rm -f /etc/localtime
mkfifo /etc/localtime
"""
# The guest refuses to delete the workspace, so it cannot forget what another session noted there.
UNFORGETTABLE = "mkdir -p /var/lib/buntime && cd / && mv /workspace /w && ln -s /var/lib/buntime /workspace"


async def layer_with(host: LocalHost, command: str) -> str:
    claimed = await host.sandboxes.claim("ses_" + "e" * 18, LIMITS)
    await says(claimed.sandbox, command)
    return await layer_of(host, claimed.volume)


async def claim(host: LocalHost, name: str, layer: str = "", account: str = EVIL) -> Claimed:
    return await host.sandboxes.claim("ses_" + name * 18, LIMITS, layer=layer, account=account)


async def filled(host: LocalHost) -> None:
    """Waits until a sandbox is parked."""
    sandboxes: Any = host.sandboxes
    filling = asyncio.create_task(sandboxes.keep_pool())
    await eventually(lambda: sandboxes.numbers().parked == 1)
    await cancel_and_wait(filling)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_files_of_a_session_do_not_keep_its_guest_from_starting(host: LocalHost) -> None:
    layer = await layer_with(host, SILENT)
    async with asyncio.timeout(PATIENCE):
        for name in "ab":
            assert await says((await claim(host, name, layer)).sandbox, "echo works") == "works\n"


async def test_records_that_do_not_go_fail_the_claim_and_leave_no_file_open(host: LocalHost) -> None:
    layer = await layer_with(host, UNFORGETTABLE)
    await filled(host)
    before = open_files()
    for name in "abc":  # the first one finds a parked sandbox
        with pytest.raises(Unavailable):
            await claim(host, name, layer)
    await eventually(lambda: open_files() <= before)


async def test_records_that_take_too_long_to_go_fail_the_claim(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = await layer_with(host, "mkdir -p /var/lib/buntime/many && echo a > /var/lib/buntime/many/a")
    monkeypatch.setattr(sandbox, "FORGET_SECONDS", 0.0)
    with pytest.raises(Unavailable):
        await claim(host, "a", layer)
    monkeypatch.undo()
    again = (await claim(host, "b", layer)).sandbox
    assert await says(again, "ls -A /var/lib/buntime/many 2> /dev/null; echo gone") == "gone\n"
