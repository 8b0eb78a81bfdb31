"""Large JSON from a guest, decoded in pieces, so that other tasks get a turn in between.

Decoding blocks the event loop for a few milliseconds per megabyte. A thread would not help, because the decoder holds
the GIL. Only a few answers may be large, and each of them is large because of one list. The guest's JSON has no spaces
and a known order of keys, so the elements of the list can be found without decoding: inside a JSON string, a quotation
mark always follows a backslash.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from buntime.sandboxes.guest.failures import UNREADABLE, Impostor

AT_ONCE = 512 << 10  # bytes that are still decoded in one piece
LARGEST_PART = 1 << 20  # bytes of one element: an escaped path of 65,536 characters, named twice, takes less
HEAD = TAIL = 1024  # bytes: the list begins in the first ones and ends in the last ones


@dataclass(frozen=True, slots=True)
class Listing:
    """How to find a list in JSON. `between`: the bytes where one element ends and the next begins. The first of them
    belongs to the element that ends."""

    opening: bytes
    between: bytes
    closing: bytes


async def decoded_in_pieces[S, T](
    text: bytes | bytearray, whole: type[S], item: type[T], listing: Listing, most: int
) -> tuple[S, list[T]]:
    """The object without its list, and at most about `most` elements of the list. Raises Impostor."""
    start = text.find(listing.opening, 0, HEAD) + len(listing.opening)
    end = text.rfind(listing.closing, max(len(text) - TAIL, start))
    if start < len(listing.opening) or end < 0:
        raise Impostor("its answer is large but has no list")
    try:
        rest = msgspec.json.decode(text[:start] + text[end:], type=whole)
        parts = _parts(text, start, end, listing.between, most)
        return rest, [msgspec.json.decode(part, type=item) async for part in parts]
    except UNREADABLE as wrong:
        raise Impostor("its large answer has the wrong form") from wrong


async def _parts(text: bytes | bytearray, start: int, end: int, between: bytes, most: int) -> AsyncIterator[memoryview]:
    """Each element. Other tasks get a turn in between."""
    view, looked, turn = memoryview(text), start, start
    for _ in range(2 * most):  # twice, because names may contain such bytes too
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
        raise Impostor("its answer has an impossibly large element")
    if end > start:
        yield view[start:end]


def _is_escaped(text: bytes | bytearray, at: int) -> bool:
    """Whether the quotation mark at this position is part of a string."""
    before = at
    while text[before - 1] == ord("\\"):
        before -= 1
    return (at - before) % 2 == 1
