"""The images that sessions can stand on."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk.shapes import Image, from_wire


class AsyncImages:
    """The images that sessions of the account can stand on."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def list(self, *, page_size: int | None = None) -> AsyncPages[Image]:
        """Lists images, sorted by name. The server's own, `default`, is not listed.

        `page_size`: images a request, 1 to 100; 50 by default.
        """

        async def fetch(offset: int) -> tuple[Sequence[Image], int]:
            query: dict[str, Any] = {"limit": page_size, "offset": offset or None}
            told = await self._calls.json(Call("GET", "/images", query))
            return [from_wire(Image, one) for one in told["images"]], told["total"]

        return AsyncPages(fetch, lambda image: image.name)

    async def delete(self, name: str) -> None:
        """Deletes the account's image with the name `name`. Sessions on it live on.

        Raises ImageNotFound, and Forbidden for an image of the operator.
        """
        await self._calls.gone(Call("DELETE", f"/images/{quote(name, safe='')}"), "image_not_found")
