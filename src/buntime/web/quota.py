"""Requests per minute, in fixed windows: per key and account by the plan, per address for calls without a valid key."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from buntime.errors import RateLimitExceeded

WINDOW = 60  # seconds
STRANGER_LIMIT = 60  # refused calls per minute and address
MOST_COUNTED = 100_000  # names in one window; all others share one count


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left for a caller in this window. `reset` is in Unix seconds."""

    limit: int
    remaining: int
    reset: int
    allowed: bool


class Quota:
    """Counts requests by name in the current minute. A new minute drops all counts, so memory stays bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window = 0
        self._counts: dict[str, int] = {}

    def take(self, name: str, limit: int) -> Standing:
        """Counts one request. Refused requests do not count."""
        window = int(self._clock()) // WINDOW
        if window != self._window:
            self._window, self._counts = window, {}
        if name not in self._counts and len(self._counts) >= MOST_COUNTED:
            name = ""
        used = self._counts.get(name, 0)
        allowed = used < limit
        if allowed:
            self._counts[name] = used = used + 1
        return Standing(limit, max(limit - used, 0), (window + 1) * WINDOW, allowed)

    def retry_after(self, standing: Standing) -> int:
        return max(1, standing.reset - int(self._clock()))


def exceeded(message: str, limit: int, retry_after: int, **details: object) -> RateLimitExceeded:
    return RateLimitExceeded(message, limit=limit, retryAfter=retry_after, **details)


def client_address(forwarded: bytes | None, peer: str) -> str:
    """Where a call comes from: the last X-Forwarded-For element, which the edge sets, or else the peer."""
    text = (forwarded or b"").rpartition(b",")[2].strip().decode("latin-1") or peer
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return peer


def counted_address(forwarded: bytes | None, peer: str) -> str:
    """The source of an unauthenticated call. An IPv6 address counts by its /64, which providers give to one
    customer."""
    try:
        address = ipaddress.ip_address(client_address(forwarded, peer))
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
