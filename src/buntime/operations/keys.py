"""One method per API operation on an account's keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime import errors, requests
from buntime.account import Key, new_key
from buntime.caller import Caller
from buntime.event import of_new_key, of_revoked_key
from buntime.ports import Answer, Store
from buntime.requests import NewKey

KEYS = 100  # valid ones of one account at a time


@dataclass(frozen=True, slots=True)
class MadeKey:
    secret: str
    key: Key


class Keys:
    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def create(self, caller: Caller, new: NewKey, answer: Callable[[MadeKey], Answer] | None = None) -> MadeKey:
        """A key that may do no more than the caller's and ends no later. `answer`: see `Sessions.create`.

        Raises MissingScope, Forbidden, ResourceLimitExceeded.
        """
        now = int(self._clock())
        scopes, expires_at = requests.check_key(new, caller, now)
        owner, maker = caller.account.id, caller.key.id
        key, secret = new_key(owner, now, name=new.name, scopes=scopes, expires_at=expires_at, maker=maker)
        made = MadeKey(secret, key)
        try:
            await self._store.add_key(key, answer and answer(made), KEYS, (of_new_key(key),))
        except errors.ResourceLimitExceeded:
            raise errors.ResourceLimitExceeded("keys", KEYS, "account", caller.plan.name) from None
        return made

    async def list(self, caller: Caller, limit: int, offset: int) -> tuple[Sequence[Key], int]:
        """A page of the valid keys, oldest first, and the total."""
        found = await self._valid(caller)
        return found[offset : offset + limit], len(found)

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """Its calls are refused from now on, the caller's own key's too. Raises KeyNotFound."""
        key = next((key for key in await self._valid(caller) if key.id == key_id), None)
        now = int(self._clock())
        if key is None or not await self._store.revoke_key(key_id, now, (of_revoked_key(key, now),)):
            raise errors.KeyNotFound(key_id)

    async def _valid(self, caller: Caller) -> Sequence[Key]:
        now = self._clock()
        return [key for key in await self._store.list_keys(caller.account.id) if key.is_valid(now)]
