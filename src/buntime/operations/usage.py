"""What an account has used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime import errors
from buntime.caller import Caller
from buntime.plan import Plan
from buntime.ports import Store
from buntime.usage import NOTHING, Amounts, Window

DAY = 86_400
MOST_DAYS = 400  # in one request


@dataclass(frozen=True, slots=True)
class Days:
    """Whole days in UTC, counted from 1970, the last one included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Total:
    """`groups`: what each session or day has of it, where that was asked for."""

    days: Days
    amounts: Amounts
    groups: Sequence[tuple[str | int, Amounts]] = ()


class Usage:
    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def days(self, since: int | None, until: int | None) -> Days:
        """The days that two times (Unix seconds) are in. By default, the 30 days until now. A time at midnight ends the
        day before. Raises InvalidRequest."""
        until = int(self._clock()) if until is None else until
        last = (until - 1) // DAY
        first = last - 29 if since is None else since // DAY
        if since is not None and since >= until:
            raise errors.InvalidRequest("from", "from must be before to.")
        if last - first >= MOST_DAYS:
            raise errors.InvalidRequest("from", f"from and to must be at most {MOST_DAYS} days apart.")
        return Days(first, last)

    async def total(self, caller: Caller, days: Days, session_id: str | None = None) -> Total:
        """Of one session, which may be gone, or of the whole account."""
        by_day = await self._by_day(caller, days, session_id)
        return Total(days, _sum(by_day))

    async def by_day(self, caller: Caller, days: Days, session_id: str | None = None) -> Total:
        by_day = await self._by_day(caller, days, session_id)
        return Total(days, _sum(by_day), by_day)

    async def by_session(self, caller: Caller, days: Days, after: str, limit: int) -> Total:
        """The total is that of the account. `groups` has the page of the sessions after `after`, by id."""
        account = caller.account.id
        groups = await self._store.usage_by_session(account, days.first, days.last, after, limit)
        return Total(days, _sum(await self._by_day(caller, days, None)), groups)

    async def windows(self, caller: Caller, after: int, limit: int) -> tuple[Sequence[Window], int]:
        """Closed windows after a place, and the place of the last of them."""
        return await self._store.list_windows(caller.account.id, after, limit)

    async def _by_day(self, caller: Caller, days: Days, session_id: str | None) -> Sequence[tuple[int, Amounts]]:
        return await self._store.usage_by_day(caller.account.id, days.first, days.last, session_id)


def weighted_seconds(used: Amounts, plan: Plan) -> float:
    """The seconds in the three states, by the rates of the plan."""
    weighted = used.active * plan.rate_active + used.idle * plan.rate_idle + used.deep_sleep * plan.rate_deep_sleep
    return round(weighted / 1000, 3)


def _sum(groups: Sequence[tuple[object, Amounts]]) -> Amounts:
    return sum((amounts for _, amounts in groups), NOTHING)
