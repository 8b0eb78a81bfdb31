"""Who uses a session's sandbox now.

Three kinds of use exist. A request holds a session for as long as it runs. A permission of the edge is lent for a
fixed time. A transition (suspend, wake, deep sleep) takes the session's lock, so transitions come one at a time.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary


class Holds:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()  # session → requests
        self._lent: dict[str, float] = {}  # session → the end of the last permission, on the loop's clock

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

    def lend(self, session_id: str, seconds: float) -> None:
        """The session counts as in use for `seconds`."""
        until = asyncio.get_running_loop().time() + seconds
        self._lent[session_id] = max(self._lent.get(session_id, 0.0), until)

    async def spent(self, session_id: str) -> None:
        """Waits until everything that was lent before this call is over."""
        await asyncio.sleep(self._lent.get(session_id, 0.0) - asyncio.get_running_loop().time())

    def in_use(self, session_id: str) -> bool:
        if self._held[session_id] or self._lent.get(session_id, 0.0) > asyncio.get_running_loop().time():
            return True
        self._lent.pop(session_id, None)
        return False

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._lent.pop(session_id, None)
