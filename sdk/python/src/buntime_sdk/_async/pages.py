"""Lists that come in pages."""

from collections.abc import AsyncIterator, Callable, Sequence

from buntime_sdk.waiting import Eventual


class AsyncPages[T]:
    """Iterates over all of a list; each page is asked for when it is needed."""

    def __init__(self, fetch: Callable[[int], Eventual[tuple[Sequence[T], int]]]) -> None:
        """`fetch`: an offset → the items from there on, and how many there are in all."""
        self._fetch = fetch

    async def page(self, offset: int = 0) -> tuple[Sequence[T], int]:
        """The items from `offset` on, and how many there are in all."""
        return await self._fetch(offset)

    async def __aiter__(self) -> AsyncIterator[T]:
        offset = 0
        while True:
            items, total = await self._fetch(offset)
            for item in items:
                yield item
            offset += len(items)
            if not items or offset >= total:
                return
