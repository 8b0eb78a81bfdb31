"""Who is told what happens to sessions, for the operator's metrics."""

from typing import Literal, Protocol

from buntime.session import State

type Loss = Literal["sandbox", "volume"]


class Monitor(Protocol):
    def woke(self, depth: State, seconds: float) -> None:
        """A session is active again. `depth`: its state before. `seconds`: from the first request for it."""
        ...

    def lost(self, what: Loss) -> None:
        """A sandbox ended without us and was replaced, or the files of a session are not on this host any more."""
        ...


class Unwatched:
    """Implements Monitor, and ignores everything."""

    def woke(self, depth: State, seconds: float) -> None:
        return None

    def lost(self, what: Loss) -> None:
        return None
