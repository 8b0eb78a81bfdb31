"""What an account has used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime import errors
from buntime.caller import Caller
from buntime.plan import Plan
from buntime.ports import Store
from buntime.session import State
from buntime.usage import KEPT_DAYS, NOTHING, Amounts, Window

DAY = 86_400
MOST_DAYS = 400  # in one request
MOST_KEPT = KEPT_DAYS + 31


@dataclass(frozen=True, slots=True)
class Days:
    """Whole days in UTC, counted from 1970, the last one included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Total:
    """`groups`: what each session (by id) or day (from 1970) has of it, where that was asked for. `after`: where the
    next page of sessions begins, or None where none follows."""

    amounts: Amounts
    groups: Sequence[tuple[str | int, Amounts]] = ()
    after: str | None = None


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

    async def by_day(self, caller: Caller, days: Days, session_id: str | None = None) -> Total:
        """Of one session, which may be gone, or of the whole account. Raises SessionNotFound."""
        found = await self._store.usage_by_day(caller.account.id, days.first, days.last, session_id)
        if session_id is not None and not found:
            await self._require_known(caller, session_id)
        return Total(_sum(found), found)

    async def by_session(self, caller: Caller, days: Days, session_id: str | None, after: str, limit: int) -> Total:
        """The total as in `by_day`. `groups` has the one session, or the page of the sessions after `after`, by id."""
        total = await self.by_day(caller, days, session_id)
        if session_id is not None:
            return Total(total.amounts, [(session_id, total.amounts)] if total.groups else [])
        page = await self._store.usage_by_session(caller.account.id, days.first, days.last, after, limit)
        return Total(total.amounts, *page)

    async def windows(self, caller: Caller, after: int, limit: int) -> tuple[Sequence[Window], int]:
        """Closed windows after a place, and the place of the last of them. Raises InvalidRequest for a place that no
        window has yet: whoever got there has read another store than this one, and would miss what comes next."""
        found, place = await self._store.list_windows(caller.account.id, after, limit)
        if place < after:
            raise errors.InvalidRequest("cursor", "cursor is beyond the newest window of this server.")
        return found, place

    async def _require_known(self, caller: Caller, session_id: str) -> None:
        """Whether the account has the session, or had it as far back as usage is kept. Raises SessionNotFound."""
        session = await self._store.get_session(session_id)
        if session is not None and session.account == caller.account.id and session.state is not State.DELETING:
            return
        today = int(self._clock()) // DAY
        if not await self._store.usage_by_day(caller.account.id, today - MOST_KEPT, today + 1, session_id):
            raise errors.SessionNotFound(session_id)


def weighted_seconds(used: Amounts, plan: Plan) -> float:
    """The seconds in the three states, by the rates of the plan."""
    weighted = used.active * plan.rate_active + used.idle * plan.rate_idle + used.deep_sleep * plan.rate_deep_sleep
    return round(weighted / 1000, 3)


def _sum(groups: Sequence[tuple[object, Amounts]]) -> Amounts:
    return sum((amounts for _, amounts in groups), NOTHING)
