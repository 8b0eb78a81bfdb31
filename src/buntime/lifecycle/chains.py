"""Chains: a full object in the archive, and increments that stand on it. Pure.

A restore reads the whole chain, and needs every object of it. So a chain does not grow for ever: past these bounds,
the next save makes a full object, which begins another chain.
"""

from collections.abc import Collection, Iterable, Iterator

from buntime.session import SavedVolume

# A link costs a restore a request to the archive and a process, together about as long as so many bytes of a full
# object. So the links of a chain cost at most as much as its full object.
LINK_BYTES, MOST_LINKS = 4 << 20, 16
LARGEST_PART = 0.5  # of the full object, for the increments together: a restore reads at most half as much again


def may_grow(saved: SavedVolume) -> bool:
    """Whether another increment may stand on it."""
    full, *increments = (*saved.sizes, saved.size)
    most = min(MOST_LINKS, 1 + full // LINK_BYTES)
    return len(saved.links) < most and sum(increments) <= LARGEST_PART * full


def longest_whole(candidates: Iterable[SavedVolume | None], broken: Collection[str]) -> SavedVolume | None:
    """The newest state of the first candidate that has one without a broken object (names). None when none has."""
    for saved in candidates:
        if saved is not None:
            links = saved.links
            whole = next((at for at, name in enumerate(links) if name in broken), len(links))
            if whole:
                return saved.up_to(whole)
    return None


def names(candidates: Iterable[SavedVolume | None]) -> Iterator[str]:
    """Of all objects that these need."""
    for saved in candidates:
        if saved is not None:
            yield from saved.links
