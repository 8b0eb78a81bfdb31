"""Decides whether and when to retry a failed call, from values alone."""

from dataclasses import dataclass

from buntime_sdk.errors import BuntimeError, ConnectionFailed

LONGEST_DELAY = 30.0
LONGEST_RETRY_AFTER = 60.0  # if the server asks for a longer wait, raise the error at once
# Retried whatever the status, since an error at the end of a stream has none.
ANSWERED_LATER = frozenset({"request_timeout", "idempotency_in_progress", "unavailable"})
PASSING = frozenset({408, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryRules:
    """`most`: how often a call is retried. `delay`: seconds before the first retry; each further retry doubles them."""

    most: int
    delay: float


def delay_before(
    failure: BuntimeError, attempt: int, rules: RetryRules, *, repeatable: bool, random: float
) -> float | None:
    """Returns the seconds to wait before the next attempt, or None to give up.

    `attempt`: how many attempts have failed. `repeatable`: carrying out the call twice does no harm, because it changes
    nothing, puts the same thing in the same place, or has an idempotency key. `random`: 0 to 1.
    """
    if attempt > rules.most or not _may_help(failure, repeatable):
        return None
    asked = failure.retry_after or 0.0
    if asked > LONGEST_RETRY_AFTER:
        return None
    back_off: float = min(rules.delay * 2 ** (attempt - 1), LONGEST_DELAY) * (0.5 + random / 2)
    return max(asked, back_off)


def may_have_begun(failure: BuntimeError) -> bool:
    """Whether the server may have carried out the failed call, or part of it."""
    if isinstance(failure, ConnectionFailed):
        return failure.begun
    waits = failure.details.get("waking") is True or failure.details.get("fetching") is True
    return failure.code != "rate_limit_exceeded" and not waits


def _may_help(failure: BuntimeError, repeatable: bool) -> bool:
    if not may_have_begun(failure):
        return True
    if not repeatable:
        return False
    if isinstance(failure, ConnectionFailed):
        return True
    return failure.code in ANSWERED_LATER or failure.status in PASSING
