"""Frames from a guest that arrive in arbitrary pieces."""

import struct
from collections.abc import Sequence

import pytest

from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.guest.frames import batches, pieces
from buntime.sandboxes.guest.outcomes import merged

LARGEST = 1000


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


class Parts:
    """A body that arrives in these parts."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._left = list(parts)

    async def read(self) -> bytes:
        return self._left.pop(0) if self._left else b""


WHOLE = frame(b"o", b"one") + frame(b"o", b"two" * 100) + frame(b"e", b"!") + frame(b"x", b'{"end": 1}')


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 11, 100, 1000])
async def test_frames_are_the_same_wherever_they_are_cut(size: int) -> None:
    found = [piece async for some in pieces(Parts(cut(WHOLE, size)), LARGEST, whole=b"x") for piece in some]
    told = list(merged(found))
    assert b"".join(content for stream, content in told if stream == "stdout") == b"one" + b"two" * 100
    assert b"".join(content for stream, content in told if stream == "stderr") == b"!"
    assert told[-1] == (None, b'{"end": 1}')
    assert [stream for stream, _ in told].count(None) == 1
    frames = [each async for some in batches(Parts(cut(WHOLE, size)), LARGEST) for each in some]
    assert [kind for kind, _ in frames] == [b"o", b"o", b"e", b"x"]


@pytest.mark.parametrize(
    "wrong", [WHOLE[:-1], WHOLE + b"o", WHOLE + b"o\0\0", frame(b"o", b""), frame(b"o", bytes(LARGEST + 1)), b"o\0"]
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_invalid_frames_are_refused(wrong: bytes, size: int) -> None:
    with pytest.raises(Impostor):
        assert [some async for some in pieces(Parts(cut(wrong, size)), LARGEST, whole=b"x")]


async def test_everything_that_has_arrived_is_read_at_once() -> None:
    assert len([some async for some in pieces(Parts([WHOLE]), LARGEST, whole=b"x")]) == 1
