"""Questions that are asked together: while one batch is under way, those that come wait for the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence


class Batches[Q, A]:
    """`ask` gets all questions that wait, and returns their answers in the same order. What it raises, each asker
    gets."""

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], name: str) -> None:
        self._ask, self._name = ask, name
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all(), name=self._name)
        return await answer

    async def _ask_all(self) -> None:
        asked: list[tuple[Q, asyncio.Future[A]]] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                try:
                    answers = await self._ask([question for question, _ in asked])
                except Exception as failure:  # noqa: BLE001 - the askers get it
                    _fail(asked, failure)
                else:
                    for (_, future), answer in zip(asked, answers, strict=True):
                        if not future.done():
                            future.set_result(answer)
        finally:  # cancelled with the loop, perhaps
            self._asking = None
            for _, future in (*asked, *self._waiting):
                future.cancel()


def _fail[Q, A](asked: Sequence[tuple[Q, asyncio.Future[A]]], failure: Exception) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(failure)
