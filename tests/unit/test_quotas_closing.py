"""A server that stops leaves no measurement behind that would begin when its tasks have ended."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from buntime.sandboxes import quotas
from buntime.sandboxes.quotas import Quotas


class Started:
    """Fake tasks, which count what is started."""

    def __init__(self) -> None:
        self.count = 0

    def start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        self.count += 1
        work.close()


@pytest.mark.parametrize(("closes", "expected"), [(False, 2), (True, 0)])
async def test_nothing_is_measured_after_the_end(monkeypatch: pytest.MonkeyPatch, closes: bool, expected: int) -> None:
    monkeypatch.setattr(quotas, "SETTLE_SECONDS", 0.01)
    started, volumes, sync = Started(), SimpleNamespace(shares={"volume": None}), SimpleNamespace()
    one = Quotas(volumes, started, sync)  # type: ignore[arg-type]
    one.settle("volume")
    if closes:
        one.close()
    one.settle("volume")
    await asyncio.sleep(0.1)
    assert started.count == expected
