"""One method per API operation on the tokens that open private previews."""

from collections.abc import Callable
from dataclasses import dataclass

from buntime import requests
from buntime.caller import Caller
from buntime.daemon.tasks import Tasks
from buntime.operations.entrance import Entrance
from buntime.operations.visitors import Visitors
from buntime.ports import Answer, PreviewToken, Store
from buntime.preview import hash_token, new_token
from buntime.requests import NewToken

TOKENS = 100  # valid ones of one session at a time


@dataclass(frozen=True, slots=True)
class MadeToken:
    secret: str
    token: PreviewToken


class PreviewTokens:
    def __init__(
        self, store: Store, entrance: Entrance, visitors: Visitors, tasks: Tasks, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._entrance = entrance
        self._visitors = visitors
        self._tasks = tasks
        self._clock = clock

    async def create(
        self, caller: Caller, session_id: str, new: NewToken, answer: Callable[[MadeToken], Answer] | None = None
    ) -> MadeToken:
        """A token that is valid until the session's end at the latest, also when the caller's key ends before that.

        `answer`: see `Sessions.create`. Raises TooManyTokens.
        """
        session = await self._entrance.find(caller, session_id)
        ttl, now, secret = requests.check_token(new), int(self._clock()), new_token()
        expires_at = int(min(now + ttl, session.ends_at))
        made = MadeToken(secret, PreviewToken(hash_token(secret), session.id, new.port, now, expires_at))
        await self._store.add_preview_token(made.token, answer and answer(made), TOKENS)
        return made

    async def revoke(self, caller: Caller, session_id: str, secret: str | None) -> int:
        """Revokes one token of the session, or all without a `secret`, and ends open connections to the session.

        Returns how many tokens it revoked.
        """
        session = await self._entrance.own(caller, session_id)
        token_hash = None if secret is None else hash_token(secret)

        async def revoke() -> int:
            revoked = await self._store.revoke_preview_tokens(session.id, token_hash)
            if revoked:
                await self._visitors.disconnect(session.id)
            return revoked

        return await self._tasks.finish(revoke(), f"revoke tokens of {session_id}")
