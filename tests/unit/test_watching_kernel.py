"""The loops that the server cannot run without outlive a moment in which the host has no file or no process to give."""

import asyncio
import errno
from typing import Any

import pytest

from buntime.daemon import trimming
from buntime.sandboxes.kernel import watch

TOO_MANY_FILES = OSError(errno.EMFILE, "Too many open files")


async def ended(_: str) -> None:
    pytest.fail("nothing is held")


async def test_the_watch_goes_on_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def much_is_held() -> bool:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise TOO_MANY_FILES
        return False

    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(watch, "_much_is_held", much_is_held)
    for looks_at in ("too_many_sockets", "too_many_locks"):
        monkeypatch.setattr(watch, looks_at, lambda _: {})
    nothing: Any = None
    watching = asyncio.create_task(watch.watch_kernel(nothing, ended))
    async with asyncio.timeout(10):
        while looks < 4 and not watching.done():  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0.001)
    assert not watching.done()
    watching.cancel()


async def test_trimming_goes_on_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def resident() -> int:
        nonlocal looks
        looks += 1
        if looks == 2:  # the first look is at the start
            raise TOO_MANY_FILES
        return 0

    monkeypatch.setattr(trimming, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(trimming, "_resident", resident)
    trimmed = asyncio.create_task(trimming.keep_trimmed())
    async with asyncio.timeout(10):
        while looks < 4 and not trimmed.done():  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0.001)
    assert not trimmed.done()
    trimmed.cancel()
