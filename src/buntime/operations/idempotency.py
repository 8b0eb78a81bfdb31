"""One request, one effect: later requests with the same key get the first final answer again.

The answer to a request that makes something is stored together with what it made. So a crash between the work and the
answer cannot make it twice (see `Sessions.create`).
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from buntime.daemon.tasks import Tasks
from buntime.errors import IdempotencyInProgress, IdempotencyKeyReused, InvalidState
from buntime.lifecycle.sealing import Damaged, Vault
from buntime.ports import Answer, Store


class Idempotency:
    """Remembers which keys are in progress in this process. The store has the answers."""

    def __init__(self, store: Store, vault: Vault, tasks: Tasks, clock: Callable[[], float]) -> None:
        """`vault` seals answers that have a secret."""
        self._store = store
        self._vault = vault
        self._tasks = tasks
        self._clock = clock
        self._running: set[tuple[str, str]] = set()

    def now(self) -> int:
        return int(self._clock())

    async def finish[T](self, work: Coroutine[Any, Any, T], name: str, *, until_cut: bool) -> T:
        """Awaits work that goes on when the caller is cancelled: to its end, or until `cut`. Raises its failure."""
        return await self._tasks.finish(work, name, until_cut=until_cut)

    async def cut(self) -> None:
        """Ends what `finish` took with `until_cut`: the server stops, and its time for requests is over."""
        await self._tasks.cut()

    @asynccontextmanager
    async def once(
        self, account: str, key: str, fingerprint: str, *, repeatable: bool = True
    ) -> AsyncIterator[Answer | None]:
        """Yields the stored answer, or None. For None, the caller does the work inside the block.

        `repeatable`: the work may be done again if this host is lost meanwhile. Else later requests with the key get
        OutcomeUnknown.

        Raises IdempotencyInProgress while another request with the key runs, and IdempotencyKeyReused when the key was
        used for a different request.
        """
        mark = (account, key)
        is_first = mark not in self._running
        self._running.add(mark)  # before the store is asked: of two requests at once, one is the first
        try:
            stored = await self._store.find_answer(account, key)
            if stored is not None and stored.fingerprint != fingerprint:
                raise IdempotencyKeyReused("This Idempotency-Key was used for another request.")
            if stored is None and not is_first:
                raise IdempotencyInProgress("The first request with this Idempotency-Key is still running.")
            if stored is None:
                await self._store.begin_key(account, key, fingerprint, self.now(), repeatable=repeatable)
            yield stored
        finally:
            if is_first:
                self._running.discard(mark)

    def sealed(self, answer: Answer) -> Answer:
        """The answer with its body sealed, for a body that has a secret."""
        return replace(answer, body=self._vault.seal_bytes(_label(answer), answer.body))

    def opened(self, answer: Answer) -> Answer:
        """The answer with its body unsealed. Raises InvalidState when the master key has changed."""
        try:
            return replace(answer, body=self._vault.open_bytes(_label(answer), answer.body))
        except Damaged:
            raise InvalidState("The first answer cannot be read any more. Use another Idempotency-Key.") from None

    async def give_up(self, account: str, key: str) -> None:
        """The work has failed, and may be tried again with this key."""
        await self._store.end_key(account, key)

    async def keep(self, answer: Answer) -> None:
        """Stores a final answer. An answer that was stored together with the work stays."""
        await self._store.add_answer(answer)


def _label(answer: Answer) -> bytes:
    return "\0".join(("answer", answer.account, answer.key, answer.fingerprint)).encode()
