"""The images that an account can use."""

from collections.abc import Sequence

from buntime import errors
from buntime.caller import Caller
from buntime.image import DEFAULT_IMAGE, OPERATOR, NamedImage
from buntime.ports import Store


class Images:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, caller: Caller, limit: int, offset: int) -> tuple[Sequence[NamedImage], int]:
        """A page, sorted by name, and the total. The host's own image is not in it."""
        found = await self._store.list_images(caller.account.id)
        return found[offset : offset + limit], len(found)

    async def find(self, caller: Caller, name: str) -> NamedImage:
        """Raises ImageNotFound."""
        found = await self._store.find_image(caller.account.id, name)
        if found is None:
            raise errors.ImageNotFound(name)
        return found

    async def delete(self, caller: Caller, name: str) -> None:
        """Takes the name from an image of the account. Raises ImageNotFound, and Forbidden for the operator's."""
        if await self._store.remove_image(caller.account.id, name):
            return
        if name == DEFAULT_IMAGE or (await self.find(caller, name)).account == OPERATOR:
            raise errors.Forbidden(f"The image {name!r} is the operator's. Only the operator can remove it.")
