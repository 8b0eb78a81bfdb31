"""Webhooks: endpoints to which events are sent, when their deliveries are tried, and which addresses may get them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import urlsplit

from buntime.event import EventType

RETRY_SECONDS = (0, 5, 300, 1800, 7200, 18_000, 36_000, 36_000)  # before each attempt, after the one before
OFF_SECONDS = 5 * 86400  # of failure, without a success, until an endpoint is turned off
ATTEMPT_SECONDS = 15.0  # for a whole attempt
LONGEST_URL = 2048
GONE = 410  # the endpoint's own word that it wants nothing any more

WEBHOOK_PREFIX = "whk_"
EVERYONE = ""  # the account of the operator's endpoint, which gets the events of all accounts

Off = Literal["asked", "failing", "gone"]  # why an endpoint is off: the account's wish, or what its answers were


@dataclass(frozen=True, slots=True)
class SigningSecret:
    sealed: str  # never stored as it is
    until: int | None = None  # Unix seconds, while it is rotated out; None: it is the current one


@dataclass(frozen=True, slots=True)
class Webhook:
    """Times are Unix seconds."""

    id: str  # whk_ + 18 of a-z0-9
    account: str
    url: str
    secrets: tuple[SigningSecret, ...]  # the newest first
    created_at: int
    types: frozenset[EventType] | None = None  # None: all, also those that come later
    off: Off | None = None  # None: it is on
    failing_since: int | None = None  # of its first failure after its last success
    version: int = 1  # grows with every stored change

    def gets(self, account: str, what: EventType) -> bool:
        """Whether an event that happens now is sent to it."""
        return self.off is None and self.account in (account, EVERYONE) and (self.types is None or what in self.types)


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # no attempt is left


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to one webhook. Times are Unix seconds."""

    id: str  # dlv_ + 18 of a-z0-9
    webhook: str
    state: DeliveryState
    attempts: int
    due_at: int  # the next attempt
    tried_at: int | None = None  # the last attempt
    status: int | None = None  # of the last answer, if there was one
    failure: str | None = None  # of the last attempt, in words


type Network = IPv4Network | IPv6Network
type Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


def next_attempt(attempts: int, now: float) -> float | None:
    """When the attempt after `attempts` failed ones is due, in Unix seconds. None: there is none."""
    return now + RETRY_SECONDS[attempts] if attempts < len(RETRY_SECONDS) else None


def is_success(status: int) -> bool:
    """A redirect is a failure: it would lead to an address that nobody checked."""
    return 200 <= status < 300


def turns_off(failing_since: float, now: float) -> bool:
    """Whether an endpoint that has failed since then is turned off. Both in Unix seconds."""
    return now - failing_since >= OFF_SECONDS


def is_allowed(text: str, networks: Sequence[Network] = ()) -> bool:
    """Whether a delivery may connect to this address: it is public, or in one of the operator's `networks`.

    An IPv6 address that stands for an IPv4 address is judged as that one too.
    """
    try:
        address = ip_address(text)
    except ValueError:  # with a zone, or no address at all
        return False
    meant = _meant(address)
    if any(one in network for one in {address, meant} for network in networks if network.version == one.version):
        return True
    return _is_public(meant)


def check_url(url: str) -> None:
    """Raises ValueError; its message continues a sentence that begins with "url"."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be at most {LONGEST_URL} ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must begin with https:// or http:// and name a host")
    if port == 0:
        raise ValueError("has a port that does not exist")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user name or a password")
    if parts.fragment:
        raise ValueError("must not have a fragment")


def _meant(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    refused = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not refused
