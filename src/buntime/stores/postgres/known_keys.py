"""API keys that requests have shown a moment ago, so that not each request asks the database for its key.

The database tells all hosts when a key is revoked, and when an account is suspended or deleted: they forget what they
know. Where that does not arrive, a key counts for at most a second from when the database was asked. Unknown keys are
asked for each time: a new key works at once.
"""

from collections.abc import Callable

from buntime.account import Account, Key
from buntime.fleet.boot_clock import boot_seconds

SECONDS = 1.0
MOST = 10_000  # keys

type Found = tuple[Key, Account]


class KnownKeys:
    def __init__(self, clock: Callable[[], float] = boot_seconds) -> None:
        """`clock`: seconds, which nobody sets, and which go on while the machine is suspended."""
        self._clock = clock
        self._known: dict[str, tuple[Found, float]] = {}  # hash → what was found and when it was asked, oldest first
        self._changes = 0  # that this host has made to keys and accounts

    def get(self, key_hash: str) -> Found | None:
        """None: ask the database."""
        known = self._known.get(key_hash)
        if known is None or not 0 <= self._clock() - known[1] < SECONDS:
            return None
        return known[0]

    def asking(self) -> Callable[[str, Found], None]:
        """Call this before the database is asked, and what it returns with the answer."""
        asked, changes = self._clock(), self._changes

        def learn(key_hash: str, found: Found) -> None:
            if changes != self._changes:  # this host has revoked a key meanwhile: at once, and not in a second
                return
            self._known.pop(key_hash, None)
            if len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            self._known[key_hash] = found, asked

        return learn

    def forget(self) -> None:
        """Call this when a key or an account has another status, and before this host changes that."""
        self._changes += 1
        self._known.clear()
