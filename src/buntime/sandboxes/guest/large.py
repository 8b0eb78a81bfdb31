"""Large JSON of a guest, decoded in pieces, so that other work gets its turn in between.

A decoder holds the loop for some milliseconds a megabyte, and a thread would not help: it holds the interpreter, too.
Few answers may be large, and those are large because of one list in them. A guest's JSON has no spaces, and keys in an
order that is known, so the list's elements are found without decoding: no text in JSON has a quotation mark without a
backslash before it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from buntime.sandboxes.guest.failures import UNREADABLE, Impostor

AT_ONCE = 512 << 10  # bytes that are decoded in one piece
LARGEST_PART = 1 << 20  # bytes of one element: a path of 65,536 characters, twice and escaped, is less
HEAD = TAIL = 1024  # bytes, in which the list begins and after which it has ended


@dataclass(frozen=True, slots=True)
class Listing:
    """How a list stands in JSON. `between`: bytes where an element ends and the next begins, of which the first is the
    end's."""

    opening: bytes
    between: bytes
    closing: bytes


async def decoded_in_pieces[S, T](
    text: bytes | bytearray, whole: type[S], item: type[T], listing: Listing, most: int
) -> tuple[S, list[T]]:
    """The object without its list, and at most about `most` elements of that. Raises Impostor."""
    start = text.find(listing.opening, 0, HEAD) + len(listing.opening)
    end = text.rfind(listing.closing, max(len(text) - TAIL, start))
    if start < len(listing.opening) or end < 0:
        raise Impostor("its answer is large, and not a list")
    try:
        rest = msgspec.json.decode(text[:start] + text[end:], type=whole)
        parts = _parts(text, start, end, listing.between, most)
        return rest, [msgspec.json.decode(part, type=item) async for part in parts]
    except UNREADABLE as wrong:
        raise Impostor("its answer is large, and not what it should be") from wrong


async def _parts(text: bytes | bytearray, start: int, end: int, between: bytes, most: int) -> AsyncIterator[memoryview]:
    """Each element, in turns."""
    view, looked, turn = memoryview(text), start, start
    for _ in range(2 * most):  # names may have such bytes in them, too
        found = text.find(between, looked, min(end, start + LARGEST_PART))
        if found < 0:
            break
        looked = found + 1
        if _is_escaped(text, found):
            continue
        yield view[start:looked]
        start = looked = looked + 1  # after the comma
        if start - turn > AT_ONCE // 2:
            turn = start
            await asyncio.sleep(0)
    if end - start > LARGEST_PART:
        raise Impostor("its answer has an element that cannot be")
    if end > start:
        yield view[start:end]


def _is_escaped(text: bytes | bytearray, at: int) -> bool:
    """Whether a quotation mark there is part of a text."""
    before = at
    while text[before - 1] == ord("\\"):
        before -= 1
    return (at - before) % 2 == 1
