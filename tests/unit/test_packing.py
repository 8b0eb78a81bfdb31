"""Packed content is unpacked completely or reported as damaged, with little memory."""

import secrets
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buntime.lifecycle.packing import compress, decompress
from buntime.lifecycle.sealing import Damaged

MEGABYTE = 1 << 20


def packed(content: bytes) -> bytes:
    return b"".join(compress([content]))


def unpacked(content: bytes, largest: int = MEGABYTE) -> bytes:
    return b"".join(decompress([content], largest))


def chunks(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 3000), st.integers(1, 3000))
def test_packed_content_comes_back(content: bytes, before: int, after: int) -> None:
    whole = b"".join(compress(chunks(content, before)))
    assert b"".join(decompress(chunks(whole, after), len(content))) == content


def test_large_content_comes_back() -> None:
    content = secrets.token_bytes(3 * MEGABYTE) + bytes(5 * MEGABYTE) + secrets.token_bytes(1000) * 1000
    whole = b"".join(compress(chunks(content, 65536)))
    assert len(whole) < len(content) / 2
    assert b"".join(decompress(chunks(whole, MEGABYTE), len(content))) == content


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_a_missing_end_and_trailing_bytes_are_damage(content: bytes, data: st.DataObject) -> None:
    whole = packed(content)
    with pytest.raises(Damaged):
        unpacked(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(Damaged):
        unpacked(whole + data.draw(st.binary(min_size=1, max_size=10)))
    with pytest.raises(Damaged):
        list(decompress([whole, b"more"], MEGABYTE))


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"never packed" * 1000, secrets.token_bytes(5000)],
    ids=["nothing", "a byte", "much that repeats", "noise"],
)
def test_content_that_was_never_packed_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged):
        unpacked(content)


def test_content_over_the_largest_size_is_damage_and_is_not_returned() -> None:
    whole = packed(bytes(1000))
    assert len(unpacked(whole, 1000)) == 1000
    with pytest.raises(Damaged, match="larger"):
        unpacked(whole, 999)


def test_content_that_grows_enormously_needs_little_memory() -> None:
    size = 1 << 30
    whole = list(compress(bytes(MEGABYTE) for _ in range(size // MEGABYTE)))
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in decompress(whole, size)) == size
        assert tracemalloc.get_traced_memory()[1] < 128 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_failure_of_the_source_is_raised() -> None:
    def failing() -> Iterator[bytes]:
        yield packed(b"content")[:5]
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(compress(failing()))
    with pytest.raises(TimeoutError):
        list(decompress(failing(), MEGABYTE))
