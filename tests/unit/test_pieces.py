import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from buntime.sandboxes.inside import files
from buntime.sandboxes.inside.files import PIECE, _pieces


async def cut(*sizes: int) -> Sequence[int]:
    async def parts() -> AsyncIterator[bytes]:
        for size in sizes:
            await asyncio.sleep(0)
            yield bytes(size)

    return [len(piece) async for piece in _pieces(parts())]


async def test_small_parts_are_joined_and_large_ones_are_cut() -> None:
    assert await cut() == []
    assert await cut(1, 2, 3) == [6]
    assert await cut(PIECE - 1, 1, 5) == [PIECE, 5]
    assert await cut(2 * PIECE + 3, 4) == [PIECE, PIECE, 7]
    assert await cut(PIECE) == [PIECE]


async def test_bytes_that_wait_long_are_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HELD_SECONDS", -1.0)
    assert await cut(1, 2, PIECE + 1) == [1, 2, PIECE, 1]
