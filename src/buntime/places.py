"""How many of something an account may have at a time, such as processes, over all hosts."""

from collections.abc import Callable, Mapping
from typing import Protocol

STREAMS = "streams"  # open answers that stream; the other kinds are those of `ports.Kind`

type Counts = Mapping[tuple[str, str], int]  # (account, kind) → how many this host has


class Places(Protocol):
    """What all hosts have. Each host checks by itself first what it has."""

    async def take(self, account: str, kind: str, limit: int, used: Callable[[], int]) -> bool:
        """Reserves a place for one more. False where the hosts together have no place left.

        `used`: how many this host has and starts, with this one. It may be called later, and reads memory only. Raises
        Unavailable.
        """
        ...
