"""Lists that are read from a cursor on."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from buntime_sdk.waiting import Eventual

T = TypeVar("T")


class AsyncCursorPages(Generic[T]):
    """Iterates over what comes after a cursor, and fetches each page when it is needed. Ends where nothing more is.

    `cursor`: where to go on later. A loop moves it when it has taken all items of a page, so that one that breaks off
    loses none. To handle each item exactly once, store what you made of a `page` together with the cursor.
    """

    cursor: str | None

    def __init__(
        self, fetch: Callable[[str | None], Eventual[tuple[Sequence[T], str | None]]], cursor: str | None
    ) -> None:
        """`fetch`: returns the items after a cursor, and the next cursor; None if nothing follows."""
        self.cursor = cursor
        self._fetch = fetch
        self._ended = False

    async def page(self) -> Sequence[T]:
        """Returns the next items and moves `cursor` behind them. Returns no items where nothing more is."""
        while not self._ended:
            items, following = await self._fetch(self.cursor)
            moved = following not in (None, self.cursor)
            self._ended = following is None
            self.cursor = following or self.cursor
            if items or not moved:
                return items
        return []

    async def __aiter__(self) -> AsyncIterator[T]:
        while not self._ended:
            items, following = await self._fetch(self.cursor)
            for item in items:
                yield item
            self._ended = following is None
            if following is None or following == self.cursor:
                return
            self.cursor = following
