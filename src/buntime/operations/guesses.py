"""Which other host has had a session a moment ago, so that not every request for it asks the database.

A wrong guess costs one more hop: that host knows better. So a request that comes from another host makes no guess.
"""

from collections.abc import Callable
from dataclasses import dataclass

from buntime.ports import Peer

SECONDS = 2.0  # a host that is lost, or has been drained, is asked for no longer
MOST = 10_000  # sessions


@dataclass(frozen=True, slots=True)
class Guess:
    account: str
    peer: Peer
    until: float


class Guesses:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, which may jump."""
        self._clock = clock
        self._known: dict[str, Guess] = {}  # session → guess, the oldest first

    def of(self, account: str, session_id: str) -> Peer | None:
        """None if nothing is known, or the session is not the account's."""
        found = self._known.get(session_id)
        if found is None or found.account != account or not 0 < found.until - self._clock() <= SECONDS:
            return None
        return found.peer

    def learn(self, account: str, session_id: str, peer: Peer) -> None:
        self._known.pop(session_id, None)
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[session_id] = Guess(account, peer, self._clock() + SECONDS)
