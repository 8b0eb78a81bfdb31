"""Which other host has a session, as a request for it has found out, so that not every request asks the database.

A wrong guess costs one more hop: that host knows better. So a request that comes from another host makes no guess.
"""

from collections.abc import Callable
from dataclasses import dataclass

from buntime.ports import Peer

SECONDS = 2.0  # a host that is lost, or has been drained, is asked for no longer
STEADY_SECONDS = 60.0  # the same for a host that keeps its sessions, and always has since the guess
MOST = 10_000  # sessions


@dataclass(frozen=True, slots=True)
class Guess:
    account: str
    peer: Peer
    incarnation: int | None  # of that host; None: it did not keep its sessions
    at: float


class Guesses:
    def __init__(self, me: str, steady: Callable[[Peer], int | None], clock: Callable[[], float]) -> None:
        """`me`: the id of this host. `steady`: see `ports.Owners.steady`. `clock`: seconds, which may jump."""
        self._me, self._steady, self._clock = me, steady, clock
        self._known: dict[str, Guess] = {}  # session → guess, the oldest first

    def of(self, account: str, session_id: str) -> Peer | None:
        """None if nothing is known, or the session is not the account's."""
        found = self._known.get(session_id)
        if found is None or found.account != account:
            return None
        age = self._clock() - found.at
        if 0 <= age < SECONDS or (0 <= age < STEADY_SECONDS and self._is_steady(found)):
            return found.peer
        del self._known[session_id]
        return None

    def learn(self, account: str, session_id: str, peer: Peer) -> None:
        """`peer` has it. A guess never names this host."""
        self.forget(session_id)
        if peer.id == self._me:
            return
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[session_id] = Guess(account, peer, self._steady(peer), self._clock())

    def forget(self, session_id: str) -> None:
        """This host has it. Not called where a preview or a wake has got it: the next request finds out."""
        self._known.pop(session_id, None)

    def _is_steady(self, guess: Guess) -> bool:
        return guess.incarnation is not None and self._steady(guess.peer) == guess.incarnation
