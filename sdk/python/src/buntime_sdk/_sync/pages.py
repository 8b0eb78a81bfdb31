# Made by `generate` from ../_async/pages.py: change that.
"""Lists that come in pages."""

from collections.abc import Callable, Iterator, Sequence

from buntime_sdk.waiting import Plain


class Pages[T]:
    """Iterates over all of a list; each page is asked for when it is needed."""

    def __init__(self, fetch: Callable[[int], Plain[tuple[Sequence[T], int]]]) -> None:
        """`fetch`: an offset → the items from there on, and how many there are in all."""
        self._fetch = fetch

    def page(self, offset: int = 0) -> tuple[Sequence[T], int]:
        """The items from `offset` on, and how many there are in all."""
        return self._fetch(offset)

    def __iter__(self) -> Iterator[T]:
        offset = 0
        while True:
            items, total = self._fetch(offset)
            for item in items:
                yield item
            offset += len(items)
            if not items or offset >= total:
                return
