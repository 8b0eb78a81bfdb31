"""When a webhook's deliveries are tried, and which addresses may get them. Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

RETRY_SECONDS = (0, 5, 300, 1800, 7200, 18_000, 36_000, 36_000)  # before each attempt, after the one before
OFF_SECONDS = 5 * 86400  # of failure, without a success, until an endpoint is turned off
ATTEMPT_SECONDS = 15.0  # for a whole attempt
LONGEST_URL = 2048
GONE = 410  # the endpoint's own word that it wants nothing any more

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
