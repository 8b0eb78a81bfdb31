"""What volumes contain, without reading all of their trees each time. Blocking.

Of an unshared volume, the kernel counts it. A tree that shares content has to be read, which takes about 0.15 s for
40,000 files. But the kernel finds what was added since the last snapshot without looking at the rest. What the volume
contained then and what was added since are together at least what it contains now. They are more if something was
deleted. So after a while the whole tree is read again.
"""

from dataclasses import dataclass
from typing import NamedTuple

from buntime.plan import MB
from buntime.sandboxes.kernel.trees import added_data, content_of, root_of

MOST_ADDED, PART_ADDED = 64 * MB, 8  # then the whole tree is read again, or when so large a part of it was added


class Contained(NamedTuple):
    size: int  # bytes, at least what the volume contains
    added: int = 0  # since its whole tree was read


@dataclass(frozen=True, slots=True)
class _Known:
    """Of a volume at one time."""

    at: int  # the transaction
    contained: Contained
    metadata: int


class ContentSizes:
    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def look(self, volume: str, subvolume: int) -> Contained:
        """`subvolume`: a descriptor. What is not yet on the disk is missing. Raises OSError."""
        known = self._known.get(volume)
        if known is not None:
            more = added_data(subvolume, known.at) + max(0, root_of(subvolume).metadata - known.metadata)
            size, added = known.contained.size + more, known.contained.added + more
            if added < min(MOST_ADDED, size // PART_ADDED):
                return Contained(size, added)
        return Contained(content_of(subvolume).size)

    def note(self, volume: str, subvolume: int, contained: Contained) -> None:
        """The last snapshot of the volume has just been made, and it contains so much."""
        root = root_of(subvolume)
        self._known[volume] = _Known(root.last_snapshot, contained, root.metadata)

    def forget(self, volume: str) -> None:
        self._known.pop(volume, None)
