"""Paged lists."""

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from buntime_sdk.waiting import Eventual

T = TypeVar("T")


class AsyncPages(Generic[T]):
    """Iterates over a whole list and fetches each page when it is needed.

    An item that stays in the list throughout comes exactly once, even if your loop deletes the items it is given.
    """

    def __init__(
        self, fetch: Callable[[int], Eventual[tuple[Sequence[T], int]]], identity: Callable[[T], Hashable]
    ) -> None:
        """`fetch`: returns the items from an offset on, and the total. `identity`: returns what identifies an item."""
        self._fetch = fetch
        self._identity = identity

    async def page(self, offset: int = 0) -> tuple[Sequence[T], int]:
        """Returns one page and the length of the whole list. `offset`: where the page begins."""
        return await self._fetch(offset)

    async def __aiter__(self) -> AsyncIterator[T]:
        seen = set[Hashable]()
        offset, known = 0, 0
        while True:
            items, total = await self._fetch(offset)
            gone, known = known - total, total
            if gone > 0 and offset > 0:  # deletions moved later items to before this page
                offset = max(offset - gone, 0)
                continue
            for item in items:
                if (identity := self._identity(item)) not in seen:
                    seen.add(identity)
                    yield item
            offset += len(items)
            if not items or offset >= total:
                return
