"""One request, one effect: the first final answer to a key is given again.

The answer of a request that makes something is stored together with what it made, so a crash
between the work and the answer cannot make it twice (see `Sessions.create`).
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
    """Knows which keys are being worked on in this process; the store knows the rest."""

    def __init__(self, store: Store, vault: Vault, tasks: Tasks, clock: Callable[[], float]) -> None:
        """`vault`: seals answers that hold a secret."""
        self._store = store
        self._vault = vault
        self._tasks = tasks
        self._clock = clock
        self._running: set[tuple[str, str]] = set()

    def now(self) -> int:
        return int(self._clock())

    async def finish[T](self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Awaits work that goes on to its end when the caller is cancelled. The caller gets its failure."""
        return await self._tasks.finish(work, name)

    @asynccontextmanager
    async def once(self, account: str, key: str, fingerprint: str) -> AsyncIterator[Answer | None]:
        """Yields the stored answer, or None: then the caller does the work inside the block.

        Raises IdempotencyInProgress while another holds the key, IdempotencyKeyReused for another request.
        """
        mark = (account, key)
        stored = await self._store.find_answer(account, key)
        if stored is not None:
            if stored.fingerprint != fingerprint:
                raise IdempotencyKeyReused("This Idempotency-Key was used for another request.")
            yield stored
            return
        if mark in self._running:
            raise IdempotencyInProgress("The first request with this Idempotency-Key is still running.")
        self._running.add(mark)
        try:
            yield None
        finally:
            self._running.discard(mark)

    def sealed(self, answer: Answer) -> Answer:
        """The answer as it may be kept where its body is a secret."""
        return replace(answer, body=self._vault.seal_bytes(_label(answer), answer.body))

    def opened(self, answer: Answer) -> Answer:
        """Raises InvalidState where the master key is not the one of then any more."""
        try:
            return replace(answer, body=self._vault.open_bytes(_label(answer), answer.body))
        except Damaged:
            raise InvalidState("The first answer cannot be read any more. Use another Idempotency-Key.") from None

    async def keep(self, answer: Answer) -> None:
        """Stores a final answer. One that is there already, stored together with the work, stays."""
        await self._store.add_answer(answer)


def _label(answer: Answer) -> bytes:
    return "\0".join(("answer", answer.account, answer.key, answer.fingerprint)).encode()
