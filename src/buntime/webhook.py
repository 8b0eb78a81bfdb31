"""Webhooks: endpoints to which events are sent, when their deliveries are tried, and which addresses may get them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import urlsplit

from buntime.cause import SERVER, Cause
from buntime.event import AccountEvent, EventType, new_event

RETRY_SECONDS = (0, 5, 300, 1800, 7200, 18_000, 36_000, 36_000)  # before each attempt, after the one before
HELD_ATTEMPTS = 2  # of a session's event, before its later ones may overtake it
OFF_SECONDS = 5 * 86400  # of failure, without a success, until an endpoint is turned off
ATTEMPT_SECONDS = 15.0  # for a whole attempt
LONGEST_URL = 2048
MOST_LISTED = 100_000  # deliveries of one webhook; its account has that many events
OLD_SECRETS = 2  # that still sign; a second one is there when a rotation was repeated because its answer was lost
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

    def signing_at(self, now: float) -> Sequence[SigningSecret]:
        """The secrets that sign at `now` (Unix seconds), the newest first."""
        return [secret for secret in self.secrets if secret.until is None or secret.until > now]

    def gets(self, event: AccountEvent) -> bool:
        """Whether an event that happens now is sent to it. A test goes to the one webhook that it names."""
        if self.off is not None or self.account not in (event.account, EVERYONE):
            return False
        if event.type is EventType.WEBHOOK_TEST:
            return event.data.get("webhookId", self.id) == self.id
        return self.types is None or event.type in self.types


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
    redelivery: int = 0  # which of the webhook's redeliveries was the last one of it; 0: none was


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one attempt."""

    status: int | None = None  # of the answer, if there was one
    failure: str | None = None  # in words; None: it worked

    @property
    def worked(self) -> bool:
        return self.failure is None


type Network = IPv4Network | IPv6Network
type Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_UNICAST = IPv6Network("2000::/3")  # all that is public is in it, and fec0::/10 is not
_AZURE = IPv4Address("168.63.129.16")  # a service for virtual machines, although its address looks public


def next_attempt(attempts: int, now: float) -> float | None:
    """When the attempt after `attempts` failed ones is due, in Unix seconds. None: there is none."""
    return now + RETRY_SECONDS[attempts] if attempts < len(RETRY_SECONDS) else None


def outcome_of(status: int) -> Outcome:
    """A redirect is a failure: it would lead to an address that nobody checked."""
    if 200 <= status < 300:
        return Outcome(status)
    said = f"The answer had the status {status}"
    return Outcome(status, f"{said}; redirects are not followed." if 300 <= status < 400 else f"{said}.")


def after(delivery: Delivery, outcome: Outcome, now: float) -> Delivery:
    """The delivery after one more attempt, which ended at `now` (Unix seconds)."""
    attempts, tried_at = delivery.attempts + 1, int(now)
    tried = replace(delivery, attempts=attempts, tried_at=tried_at, status=outcome.status, failure=outcome.failure)
    if outcome.worked:
        return replace(tried, state=DeliveryState.DELIVERED)
    due_at = next_attempt(attempts, now)
    return replace(tried, state=DeliveryState.FAILED) if due_at is None else replace(tried, due_at=int(due_at))


def holds_back(delivery: Delivery) -> bool:
    """Whether the session's later events wait for this one."""
    return delivery.state is DeliveryState.PENDING and delivery.attempts < HELD_ATTEMPTS


def why_off(webhook: Webhook, outcome: Outcome, now: float) -> Off | None:
    """Why an endpoint is turned off after this attempt. None: it stays on."""
    if outcome.status == GONE:
        return "gone"
    since = webhook.failing_since
    return "failing" if not outcome.worked and since is not None and turns_off(since, now) else None


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
    return is_named(text, networks) or _is_public(_meant(address))


def is_named(text: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the `networks`."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    both = {address, _meant(address)}
    return any(one in network for one in both for network in networks if network.version == one.version)


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


def rotated(webhook: Webhook, secret: SigningSecret, overlap: int, now: float) -> Webhook:
    """With a new secret. The newest before it signs for `overlap` seconds more, and those before that as they would
    have, but not longer than it."""
    until = int(now) + overlap
    old = [replace(one, until=until if one.until is None else min(one.until, until)) for one in webhook.signing_at(now)]
    kept = [one for one in old if one.until is not None and one.until > now]
    return replace(webhook, secrets=(secret, *kept[:OLD_SECRETS]))


def of_webhook(
    webhook: Webhook, what: EventType, now: float, reason: Off | None = None, cause: Cause | None = None
) -> AccountEvent:
    """Of a webhook that was created, changed, deleted, turned off or is tested. Without its URL, which may have a
    secret, and which the operator's endpoint would get too. `cause`: None for the current one."""
    data = {"webhookId": webhook.id} | ({} if reason is None else {"reason": reason})
    cause = SERVER if what is EventType.WEBHOOK_DISABLED else cause
    return new_event(webhook.account, what, now, data, cause=cause)


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
    if address == _AZURE or (isinstance(address, IPv6Address) and address not in _UNICAST):
        return False
    refused = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not refused
