"""What a caller can know of its own account."""

from collections.abc import Callable
from dataclasses import dataclass

from buntime.caller import Caller
from buntime.ports import Store


@dataclass(frozen=True, slots=True)
class Usage:
    """How many there are now. Compare with the numbers of the plan."""

    sessions: int
    snapshots: int
    images: int  # names that the account itself gave


class OwnAccount:
    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def usage(self, caller: Caller) -> Usage:
        account = caller.account.id
        return Usage(
            sessions=await self._store.count_sessions(account),
            snapshots=await self._store.count_snapshots(account, int(self._clock())),
            images=sum(image.account == account for image in await self._store.list_images(account)),
        )
