"""The contract of `inside.Files.watch`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from buntime.errors import FileNotFound
from buntime.inside import FileEvent
from buntime.ports import Sandbox
from tests.contracts.test_sandboxes import LIMITS, Host, host, sandbox

__all__ = ["LIMITS", "Host", "host", "sandbox"]  # fixtures and their dependencies

SECONDS = 60.0


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _next(events: AsyncIterator[Sequence[FileEvent]]) -> Sequence[FileEvent]:
    async with asyncio.timeout(SECONDS):
        return await anext(events)


async def test_writes_are_reported_once_the_watch_is_set(sandbox: Sandbox) -> None:
    await sandbox.files.write("/workspace/before", _parts(b"1"), None)
    async with sandbox.files.watch("/workspace", recursive=True) as events:
        await sandbox.files.write("/workspace/é", _parts(b"1"), None)
        assert await _next(events) == [FileEvent("created", "é", "file")]
        await sandbox.files.write("/workspace/before", _parts(b"2"), None)
        assert await _next(events) == [FileEvent("changed", "before", "file")]


async def test_each_of_several_watchers_gets_the_events(sandbox: Sandbox) -> None:
    async with sandbox.files.watch("/workspace", recursive=False) as one:
        async with sandbox.files.watch("/workspace", recursive=True) as other:
            await sandbox.files.write("/workspace/\udcff", _parts(b"1"), None)
            told = [FileEvent("created", "\udcff", "file")]
            assert [await _next(one), await _next(other)] == [told, told]
        await sandbox.files.write("/workspace/b", _parts(b"1"), None)
        assert await _next(one) == [FileEvent("created", "b", "file")]


async def test_a_missing_path_cannot_be_watched(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFound):
        async with sandbox.files.watch("/workspace/none", recursive=True):
            pass
