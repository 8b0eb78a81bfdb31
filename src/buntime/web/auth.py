"""Finds out who calls, and whether they may call now."""

from collections.abc import Callable, Sequence

from buntime.caller import Caller
from buntime.cause import Cause
from buntime.errors import Unauthorized
from buntime.operations.identity import Identity
from buntime.rates import HostRates, Quota, Rates, Standings
from buntime.web.exchange import Exchange
from buntime.web.quota import STRANGER_LIMIT, client_address, counted_address, exceeded


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


def _is_counted_elsewhere(exchange: Exchange) -> bool:
    """Whether the first host counts it."""
    return exchange.hops > 0


def _asked(caller: Caller) -> tuple[str, str, int]:
    """As `Rates` takes it."""
    return caller.account.id, caller.key.id, caller.plan.requests_per_minute


def _judge(exchange: Exchange, caller: Caller, standings: Standings) -> None:
    """The headers tell the key's limit, and what key and account have left. Raises RateLimitExceeded."""
    own, standing = standings
    exchange.headers += [
        (b"x-ratelimit-limit", b"%d" % own.limit),
        (b"x-ratelimit-remaining", b"%d" % min(own.remaining, standing.remaining)),
        (b"x-ratelimit-reset", b"%d" % standing.reset),
    ]
    if not standing.allowed:
        whose = "one key" if standing is own else "all keys of an account together"
        message = f"The {caller.plan.name} plan allows {standing.limit} requests a minute for {whose}."
        raise exceeded(message, standing, plan=caller.plan.name)


def _from(exchange: Exchange) -> tuple[bytes | None, str]:
    """The last X-Forwarded-For header, and the peer."""
    forwarded = exchange.header(b"x-forwarded-for")
    client = exchange.scope.get("client")
    return forwarded[-1] if forwarded else None, client[0] if client else "unknown"


class Authenticator:
    def __init__(self, identity: Identity, clock: Callable[[], float], rates: Rates | None = None) -> None:
        """`clock`: Unix seconds, for rate limits. `rates`: by default, this host knows all requests."""
        self._identity = identity
        self._rates = rates or HostRates(clock)
        self._strangers = Quota(clock)  # of each host alone

    async def caller_of(self, exchange: Exchange) -> Caller:
        """Raises Unauthorized, RateLimitExceeded, Forbidden for a suspended account, or Unavailable.

        After this every answer has the rate limit headers, if this host counts the request. A question is not counted
        yet: see `count_question`.
        """
        try:
            caller = await self._identity.identify(bearer(exchange.header(b"authorization")))
        except Unauthorized:
            self.count_stranger(exchange)
            raise
        exchange.caller = caller
        if not exchange.is_question and not _is_counted_elsewhere(exchange):
            asked = _asked(caller)
            _judge(exchange, caller, self._rates.count(*asked) or await self._rates.ask(*asked))
        self._identity.require_active(caller)
        return caller

    async def count_question(self, exchange: Exchange, caller: Caller) -> None:
        """Counts a question whose answer the client gets, or after which the request goes to another host: it does not
        come again. Does nothing for a request. Raises RateLimitExceeded and Unavailable."""
        if exchange.is_question and not _is_counted_elsewhere(exchange):
            asked = _asked(caller)
            _judge(exchange, caller, self._rates.count(*asked) or await self._rates.ask(*asked))

    def count_stranger(self, exchange: Exchange) -> None:
        """Counts a call without a valid key against its address. Raises RateLimitExceeded."""
        if _is_counted_elsewhere(exchange):
            return
        address = counted_address(*_from(exchange))
        standing = self._strangers.take(address, STRANGER_LIMIT)
        if not standing.allowed:
            raise exceeded("Too many calls without a valid API key from this address.", standing)
