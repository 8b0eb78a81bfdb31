"""Chains: a full object in the archive, and increments that stand on it. Pure.

A restore reads the whole chain, and needs every object of it. So a chain does not grow for ever. Past these bounds it
is folded: a full object of the state that is archived already begins another chain. A wake comes before that. If the
session never sleeps long enough, the chain ends at twice these bounds: then the save itself makes a full object.
"""

from collections.abc import Collection, Iterable, Iterator

from buntime.session import SavedVolume

# A link costs a restore a request to the archive and a process, together about as long as so many bytes of a full
# object. So the links of a chain cost at most as much as its full object.
LINK_BYTES, MOST_LINKS = 4 << 20, 16
LARGEST_PART = 0.5  # of the full object, for the increments together: a restore reads at most half as much again


UNFOLDED = 2


def may_grow(saved: SavedVolume) -> bool:
    """Whether another increment may stand on it."""
    return _is_within(saved, UNFOLDED)


def is_long(saved: SavedVolume) -> bool:
    """Whether the chain should be folded. If its last increment is large, the next one may be, too: then a full object
    for each would double what is archived."""
    return bool(saved.below) and not _is_within(saved, 1) and saved.size <= LARGEST_PART * saved.sizes[0]


def _is_within(saved: SavedVolume, factor: int) -> bool:
    full, *increments = (*saved.sizes, saved.size)
    most = min(MOST_LINKS - 1, full // LINK_BYTES)
    return len(increments) < factor * most and sum(increments) <= factor * LARGEST_PART * full


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
