# Made by `generate` from ../_async/pages.py: change that.
"""Lists that come in pages."""

from collections.abc import Callable, Hashable, Iterator, Sequence

from buntime_sdk.waiting import Plain


class Pages[T]:
    """Iterates over all of a list; each page is asked for when it is needed.

    What is in the list all the while comes once, also where the loop itself deletes what it is given.
    """

    def __init__(
        self, fetch: Callable[[int], Plain[tuple[Sequence[T], int]]], identity: Callable[[T], Hashable]
    ) -> None:
        """`fetch`: an offset → the items from there on, and how many there are in all. `identity`: of an item."""
        self._fetch = fetch
        self._identity = identity

    def page(self, offset: int = 0) -> tuple[Sequence[T], int]:
        """The items from `offset` on, and how many there are in all."""
        return self._fetch(offset)

    def __iter__(self) -> Iterator[T]:
        seen = set[Hashable]()
        offset, known = 0, 0
        while True:
            items, total = self._fetch(offset)
            gone, known = known - total, total
            if gone > 0 and offset > 0:  # what is still to come has moved up, to before this page
                offset = max(offset - gone, 0)
                continue
            for item in items:
                if (identity := self._identity(item)) not in seen:
                    seen.add(identity)
                    yield item
            offset += len(items)
            if not items or offset >= total:
                return
