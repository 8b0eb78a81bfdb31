"""Whom a request counts against without a valid key, and how a rate limit refuses."""

import ipaddress
import math
from functools import lru_cache

from buntime.errors import RateLimitExceeded
from buntime.rates import Standing

ADDRESSES = 4096  # that are remembered
STRANGER_LIMIT = 60  # refused calls per minute and address


def exceeded(message: str, standing: Standing, **details: object) -> RateLimitExceeded:
    retry_after = max(1, math.ceil(standing.seconds))
    return RateLimitExceeded(message, limit=standing.limit, retryAfter=retry_after, **details)


def client_address(forwarded: bytes | None, peer: str) -> str:
    """Where a call comes from: the last X-Forwarded-For element, which the edge sets, or else the peer."""
    text = (forwarded or b"").rpartition(b",")[2].strip().decode("latin-1")
    return _address(text or peer) or peer


@lru_cache(ADDRESSES)
def _address(text: str) -> str | None:
    """As `ipaddress` writes it. None: it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


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
