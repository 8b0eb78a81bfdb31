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

    def captured(self, seconds: float) -> None:
        """The files of a session were captured, for a snapshot, a fork or an image."""
        ...

    def checkpointed(self, seconds: float) -> None:
        """A checkpoint of a session is in the archive. `seconds`: from its beginning."""
        ...

    def forked(self, count: int) -> None:
        """A fork made this many sessions."""
        ...

    def restored(self, seconds: float) -> None:
        """A session got the files of a snapshot. `seconds`: without its wake afterwards."""
        ...


class Unwatched:
    """Implements Monitor, and ignores everything."""

    def woke(self, depth: State, seconds: float) -> None:
        return None

    def lost(self, what: Loss) -> None:
        return None

    def captured(self, seconds: float) -> None:
        return None

    def checkpointed(self, seconds: float) -> None:
        return None

    def forked(self, count: int) -> None:
        return None

    def restored(self, seconds: float) -> None:
        return None
