"""Forks: sessions that start with the files of another one."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from buntime import errors, requests
from buntime.caller import Caller
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.ids import new_id
from buntime.lifecycle.assembly import Lifecycle
from buntime.operations.entrance import Entrance
from buntime.operations.sessions import Sessions, Source
from buntime.ports import Answer, Store
from buntime.requests import NewFork
from buntime.session import Session
from buntime.snapshot import Layer

AT_ONCE = 16  # sessions of one fork that are being made

type Forked = bytes | errors.BuntimeError  # how the new session is shown, or why there is none


@dataclass(frozen=True, slots=True)
class _Work:
    caller: Caller
    source: Source
    like: Session  # what the new sessions inherit
    ttl: float
    first: Answer | None  # for the request's Idempotency-Key
    show: Callable[[Session], bytes]


class Forks:
    def __init__(
        self, store: Store, lifecycle: Lifecycle, entrance: Entrance, sessions: Sessions, tasks: Tasks
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._entrance = entrance
        self._sessions = sessions
        self._tasks = tasks

    async def create(
        self,
        caller: Caller,
        session_id: str,
        fork: NewFork,
        answer: Answer | None,
        show: Callable[[Session], bytes],
    ) -> Sequence[Forked]:
        """One entry for each session that was asked for, in order.

        `answer`: for the request's Idempotency-Key, still without a body. Each session is stored together with an
        answer of its own, so that a repeated request goes on where a crash stopped the first, and with the same files.
        Where no session can be made, raises why the first could not.
        """

        async def fork_here(source: Session) -> Sequence[Forked]:
            ttl, like = requests.check_fork(fork, source, caller.plan)
            work = self._create(caller, session_id, fork.count, ttl, like, answer, show)
            return await self._tasks.finish(work, f"fork of {session_id}")

        return await self._entrance.wherever(caller, session_id, fork_here)

    async def _create(
        self,
        caller: Caller,
        session_id: str,
        count: int,
        ttl: float,
        like: Session,
        answer: Answer | None,
        show: Callable[[Session], bytes],
    ) -> Sequence[Forked]:
        layer = await self._layer(caller, session_id, answer)
        try:
            requests.check_fits(layer.size, like.limits)
            source = Source(layer.image, like.image_name, layer.id)
            work = _Work(caller, source, like, ttl, answer, show)
            places = asyncio.Semaphore(AT_ONCE)
            made = await asyncio.gather(*(self._one(work, number, places) for number in range(count)))
        finally:  # nobody waits for it
            self._tasks.start(self._let_go(layer), f"end of the fork of {session_id}")
        self._lifecycle.monitor.forked(sum(isinstance(each, bytes) for each in made))
        first = made[0]
        if isinstance(first, errors.BuntimeError) and not any(isinstance(each, bytes) for each in made):
            raise first
        return made

    async def _layer(self, caller: Caller, session_id: str, answer: Answer | None) -> Layer:
        """The files of the source, which the store keeps until the fork is finished."""
        key = new_id("fork ") if answer is None else answer.key  # a client's key has no space
        kept = await self._store.find_fork_layer(caller.account.id, key)
        if kept is not None:
            await self._lifecycle.layers.bring(kept.id)
            return kept
        _, layer = await self._lifecycle.layers.capture(session_id)
        layer = replace(layer, fork=key)
        try:
            await self._store.add_layer(layer)
        except errors.CommitUnknown:
            raise  # the same as when cancelled
        except Exception:  # not when cancelled: it may be stored then, and the next start decides
            await self._lifecycle.layers.discard(layer.id)
            raise
        reached("fork: layer stored")
        return layer

    async def _let_go(self, layer: Layer) -> None:
        with suppress(errors.Unavailable):  # an old fork loses its layer in the end
            await self._store.end_fork(layer.id)
        self._lifecycle.layers.look_soon()

    async def _one(self, work: _Work, number: int, places: asyncio.Semaphore) -> Forked:
        key = None if work.first is None else f"{work.first.key} fork {number}"  # a client's key has no space

        def answer(session: Session) -> Answer:
            assert work.first is not None
            assert key is not None
            return replace(work.first, key=key, body=work.show(session))

        async with places:
            try:
                if (stored := await self._shown(work, key)) is not None:
                    return stored
                made = await self._sessions.make(
                    work.caller, work.like, work.ttl, work.source, answer if key is not None else None
                )
            except errors.BuntimeError as failed:
                with suppress(errors.Unavailable):  # another host may have made it since, and has its key and its name
                    return await self._shown(work, key) or failed
                return failed
        reached("fork: one stored")
        return work.show(made)

    async def _shown(self, work: _Work, key: str | None) -> bytes | None:
        """The session that is made already for this key."""
        stored = None if key is None else await self._store.find_answer(work.caller.account.id, key)
        return None if stored is None else stored.body
