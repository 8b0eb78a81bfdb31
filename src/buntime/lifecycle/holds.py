"""Who uses a session's sandbox now.

Three kinds of use exist. A request holds a session for as long as it runs. A permission of the edge is lent for a
fixed time. A transition (suspend, wake, deep sleep) takes the session's lock, so transitions come one at a time. A wake
waits for a host that is giving the session up, see `leaving`.

A copy of the files is made between two writes of the server, see `writing` and `copying`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from weakref import WeakValueDictionary

WRITES_SECONDS = 2.0  # a copy waits so long for writes that have begun: the session may not let them end


class _Writes:
    """Writes to one session's files, and copies of them."""

    def __init__(self) -> None:
        self._under_way = self._copies = 0
        self._ended, self._allowed = asyncio.Event(), asyncio.Event()
        self._ended.set()
        self._allowed.set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        while not self._allowed.is_set():
            await self._allowed.wait()
        self._under_way += 1
        self._ended.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._ended.set()

    @asynccontextmanager
    async def none(self) -> AsyncIterator[None]:
        self._copies += 1
        self._allowed.clear()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITES_SECONDS):
                    await self._ended.wait()
            yield
        finally:
            self._copies -= 1
            if not self._copies:
                self._allowed.set()


class Holds:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()  # session → requests
        self._writes: WeakValueDictionary[str, _Writes] = WeakValueDictionary()
        self._lent: dict[str, float] = {}  # session → the end of the last permission, on the loop's clock
        self._awaited: Counter[str] = Counter()  # session → calls of `spent`
        self._leaving: dict[str, asyncio.Event] = {}  # session → set when wakes wait no longer

    def lock(self, session_id: str) -> asyncio.Lock:
        """The lock that every transition of the session takes."""
        return self._locks.setdefault(session_id, asyncio.Lock())

    @contextmanager
    def held(self, session_id: str) -> Iterator[None]:
        """The session counts as in use for the duration of the block."""
        self._held[session_id] += 1
        try:
            yield
        finally:
            self._held[session_id] -= 1
            if not self._held[session_id]:
                del self._held[session_id]

    @asynccontextmanager
    async def writing(self, session_id: str) -> AsyncIterator[None]:
        """The server puts files into the session. First waits for a copy that is being made."""
        async with self._writes.setdefault(session_id, _Writes()).one():
            yield

    @asynccontextmanager
    async def copying(self, session_id: str) -> AsyncIterator[None]:
        """The session's files are copied, and no write of the server is half done in the copy.

        A file is put in its place by a rename, and the kernel may write out its content after the rename. A copy that
        is made in between has an empty file. Only a write that takes longer than WRITES_SECONDS goes on beside.
        """
        async with self._writes.setdefault(session_id, _Writes()).none():
            yield

    @contextmanager
    def leaving(self, session_id: str, seconds: float) -> Iterator[None]:
        """The host gives the session up in the block. Wakes wait for its end, for so many seconds at most."""
        stays = self._leaving[session_id] = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(seconds, stays.set)
        try:
            yield
        finally:
            timer.cancel()
            stays.set()
            del self._leaving[session_id]

    async def not_leaving(self, session_id: str) -> None:
        """Returns when a wake need not wait. See `leaving`."""
        if stays := self._leaving.get(session_id):
            await stays.wait()

    def lend(self, session_id: str, seconds: float) -> None:
        """The session counts as in use for `seconds`."""
        until = asyncio.get_running_loop().time() + seconds
        self._lent[session_id] = max(self._lent.get(session_id, 0.0), until)

    def is_lent(self, session_id: str) -> bool:
        return self._lent.get(session_id, 0.0) > asyncio.get_running_loop().time()

    def is_awaited(self, session_id: str) -> bool:
        """Whether somebody waits in `spent`."""
        return session_id in self._awaited

    async def spent(self, session_id: str) -> None:
        """Waits until everything that was lent before this call is over."""
        self._awaited[session_id] += 1
        try:
            await asyncio.sleep(self._lent.get(session_id, 0.0) - asyncio.get_running_loop().time())
        finally:
            self._awaited[session_id] -= 1
            if not self._awaited[session_id]:
                del self._awaited[session_id]

    def in_use(self, session_id: str) -> bool:
        if self._held[session_id] or self.is_lent(session_id):
            return True
        self._lent.pop(session_id, None)
        return False

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._lent.pop(session_id, None)
