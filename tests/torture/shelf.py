"""The snapshots and images that the torture knows of, and what they contain."""

import random
import threading
from dataclasses import dataclass

from tests.torture.content import Expected


@dataclass(frozen=True, slots=True)
class Kept:
    path: str  # in the API
    name: str  # a snapshot's id, or an image's name
    session: str  # id of the session whose files it has
    expected: Expected  # of a session that was made of it


class Shelf:
    """Any thread may use it. What was borrowed is not there until it is given back, so that nobody deletes it."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._lock = threading.Lock()

    def add(self, kept: Kept) -> None:
        with self._lock:
            self._kept.append(kept)

    def borrow(self, rng: random.Random, deepest: int = 1000) -> Kept | None:
        """Takes one at random that stands on at most `deepest` made images."""
        with self._lock:
            found = [kept for kept in self._kept if kept.expected.depth <= deepest]
            if not found:
                return None
            chosen = rng.choice(found)
            self._kept.remove(chosen)
            return chosen

    def take_of(self, session: str) -> list[Kept]:
        """Takes all that have the session's files."""
        with self._lock:
            taken = [kept for kept in self._kept if kept.session == session]
            self._kept = [kept for kept in self._kept if kept.session != session]
            return taken

    def take_all_but(self, most: int) -> list[Kept]:
        """Takes the oldest, so that at most so many are left."""
        with self._lock:
            taken = self._kept[: max(len(self._kept) - most, 0)]
            self._kept = self._kept[len(taken) :]
            return taken
