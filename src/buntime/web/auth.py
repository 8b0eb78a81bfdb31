"""Finds out who calls, and whether they may call now."""

from collections.abc import Sequence

from buntime.caller import Caller
from buntime.cause import Cause
from buntime.errors import Unauthorized
from buntime.operations.identity import Identity
from buntime.web.exchange import Exchange
from buntime.web.quota import STRANGER_LIMIT, Quota, client_address, counted_address, exceeded


def bearer(values: Sequence[bytes]) -> str | None:
    """The secret in the Authorization header, None if there is no header. Raises Unauthorized if it is malformed."""
    if not values:
        return None
    if len(values) > 1:
        raise Unauthorized("Send exactly one Authorization header.")
    scheme, _, secret = values[0].partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthorized("The Authorization header must be: Bearer btk_…")
    return secret.strip(b" \t").decode("latin-1")


def cause_of(exchange: Exchange, caller: Caller) -> Cause:
    """What this call does, it has caused."""
    address = client_address(*_from(exchange))
    return Cause("key", caller.account.id, exchange.request_id.decode("ascii"), caller.key.id, address)


def _from(exchange: Exchange) -> tuple[bytes | None, str]:
    """The last X-Forwarded-For header, and the peer."""
    forwarded = exchange.header(b"x-forwarded-for")
    client = exchange.scope.get("client")
    return forwarded[-1] if forwarded else None, client[0] if client else "unknown"


class Authenticator:
    def __init__(self, identity: Identity, quota: Quota, strangers: Quota) -> None:
        self._identity = identity
        self._quota = quota
        self._strangers = strangers

    async def caller_of(self, exchange: Exchange) -> Caller:
        """Raises Unauthorized, RateLimitExceeded, or Forbidden for a suspended account.

        After this every answer has the rate limit headers.
        """
        try:
            caller = await self._identity.identify(bearer(exchange.header(b"authorization")))
        except Unauthorized:
            self.count_stranger(exchange)
            raise
        exchange.caller = caller
        limit = caller.plan.requests_per_minute
        standing = self._quota.take(caller.key.id, limit)
        exchange.headers += [
            (b"x-ratelimit-limit", b"%d" % standing.limit),
            (b"x-ratelimit-remaining", b"%d" % standing.remaining),
            (b"x-ratelimit-reset", b"%d" % standing.reset),
        ]
        if not standing.allowed:
            raise exceeded(
                f"The {caller.plan.name} plan allows {limit} requests a minute for one key.",
                limit,
                self._quota.retry_after(standing),
                plan=caller.plan.name,
            )
        self._identity.require_active(caller)
        return caller

    def count_stranger(self, exchange: Exchange) -> None:
        """Counts a call without a valid key against its address. Raises RateLimitExceeded."""
        address = counted_address(*_from(exchange))
        standing = self._strangers.take(address, STRANGER_LIMIT)
        if not standing.allowed:
            raise exceeded(
                "Too many calls without a valid API key from this address.",
                STRANGER_LIMIT,
                self._strangers.retry_after(standing),
            )
