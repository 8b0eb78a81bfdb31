"""A server that stops removes the parked sandboxes, even if one of them cannot be removed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from buntime.daemon.tasks import Tasks
from buntime.errors import Unavailable
from buntime.sandboxes.kernel.commands import HostCommandFailed
from tests.unit.test_adopting import Host


@pytest.mark.parametrize("failure", [Unavailable("busy"), HostCommandFailed("busy"), OSError(16, "busy")])
async def test_a_parked_sandbox_that_cannot_be_removed_stops_neither_the_others_nor_the_stop(
    tmp_path: Path, failure: Exception
) -> None:
    host, tried = Host(tmp_path, pool_size=3), list[str]()
    for name in "abc":
        host.leave(name, None)
    async with Tasks() as tasks:
        sandboxes = host.sandboxes(tasks)
        machinery: Any = sandboxes._machinery
        machinery.quotas = SimpleNamespace(close=lambda: None)
        await sandboxes.recover({})
        await sandboxes.adopt()

        async def discard(sandbox_id: str) -> None:
            tried.append(sandbox_id)
            if len(tried) == 1:
                raise failure
            host.removed.append(sandbox_id)

        sandboxes._discard = discard  # type: ignore[method-assign]
        await sandboxes.close()
    assert len(host.removed) == 2
    assert sorted(tried) == ["a", "b", "c"]
