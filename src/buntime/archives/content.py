"""Compares what two readers return of an object."""

from collections.abc import Iterator


def are_equal(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Compares pieces of any sizes. Memory does not grow with them."""
    ahead = bytearray()
    for piece in one:
        while len(ahead) < len(piece):
            more = next(other, None)
            if more is None:
                return False
            ahead += more
        if ahead[: len(piece)] != piece:
            return False
        del ahead[: len(piece)]
    return not ahead and not any(other)
