"""Which days of usage are asked for, what a total has, and how it is weighted."""

from dataclasses import replace

import pytest

from buntime.account import Account, new_key
from buntime.caller import Caller
from buntime.errors import InvalidRequest, SessionNotFound
from buntime.operations.usage import DAY, MOST_DAYS, Days, Total, Usage, weighted_seconds
from buntime.plan import load_plans
from buntime.testing.store import FakeStore
from buntime.usage import DAY_MS, Amounts, Moment, Reading
from tests.contracts.examples import session

TODAY = 20_000
NOON = TODAY * DAY + DAY // 2
PLAN = load_plans(None)["paid"]
CALLER = Caller(Account("acc_one", "paid", 0), new_key("acc_one", 0)[0], PLAN)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def usage(store: FakeStore) -> Usage:
    return Usage(store, lambda: float(NOON))


async def use(store: FakeStore, name: str, days: int) -> None:
    """A session is awake from the beginning of TODAY on, for so many days."""
    begin = TODAY * DAY_MS
    await store.add_session(session(name), None, 9, reading=Reading(Moment(begin, "", begin)))
    end = begin + days * DAY_MS
    await store.note_usage({name: Reading(Moment(end, "", end))})


def test_by_default_the_last_thirty_days_are_asked_for(usage: Usage) -> None:
    assert usage.days(None, None) == Days(TODAY - 29, TODAY)


def test_times_stand_for_their_days(usage: Usage) -> None:
    assert usage.days(NOON - DAY, NOON) == Days(TODAY - 1, TODAY)
    assert usage.days((TODAY - 1) * DAY, TODAY * DAY) == Days(TODAY - 1, TODAY - 1)


@pytest.mark.parametrize(
    ("since", "until"), [(NOON, NOON), (NOON + 1, NOON), (NOON + 1, None), (NOON - MOST_DAYS * DAY, NOON)]
)
def test_days_that_end_before_they_begin_or_are_too_many_are_refused(
    usage: Usage, since: int, until: int | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        usage.days(since, until)
    assert refused.value.details["field"] == "from"


async def test_groups_add_up_to_the_total(usage: Usage, store: FakeStore) -> None:
    await use(store, "ses_a", 1)
    await use(store, "ses_b", 2)
    days = Days(TODAY, TODAY + 2)
    by_day = await usage.by_day(CALLER, days)
    by_session = await usage.by_session(CALLER, days, None, "", 10)
    assert [(day, used.active) for day, used in by_day.groups] == [(TODAY, 2 * DAY_MS), (TODAY + 1, DAY_MS)]
    assert [(name, used.active) for name, used in by_session.groups] == [("ses_a", DAY_MS), ("ses_b", 2 * DAY_MS)]
    assert by_day.amounts == by_session.amounts == Amounts(active=3 * DAY_MS)
    assert by_session.after is None
    one = await usage.by_session(CALLER, days, "ses_a", "", 10)
    assert (one.amounts, one.groups) == (Amounts(active=DAY_MS), [("ses_a", Amounts(active=DAY_MS))])


async def test_a_page_of_sessions_has_the_total_of_all(usage: Usage, store: FakeStore) -> None:
    await use(store, "ses_a", 1)
    await use(store, "ses_b", 2)
    page = await usage.by_session(CALLER, Days(TODAY, TODAY + 2), None, "ses_a", 1)
    assert [name for name, _ in page.groups] == ["ses_b"]
    assert page.amounts.active == 3 * DAY_MS


async def test_another_accounts_session_is_not_found(usage: Usage, store: FakeStore) -> None:
    await use(store, "ses_a", 1)
    other = replace(CALLER, account=Account("acc_two", "paid", 0))
    for call in (usage.by_day(other, Days(0, 9), "ses_a"), usage.by_session(other, Days(0, 9), "ses_a", "", 1)):
        with pytest.raises(SessionNotFound):
            await call
    assert await usage.windows(other, 0, 10) == ([], 0)


async def test_a_session_without_use_in_these_days_has_used_nothing(usage: Usage, store: FakeStore) -> None:
    await use(store, "ses_a", 1)
    assert await usage.by_day(CALLER, Days(0, 9), "ses_a") == Total(Amounts(), [])
    await store.remove_session("ses_a")
    assert await usage.by_day(CALLER, Days(0, 9), "ses_a") == Total(Amounts(), [])


async def test_a_place_beyond_the_newest_window_is_refused(usage: Usage, store: FakeStore) -> None:
    with pytest.raises(InvalidRequest, match="beyond"):
        await usage.windows(CALLER, 1, 10)


def test_seconds_are_weighted_by_the_rates_of_the_plan() -> None:
    used = Amounts(active=1000, idle=8000, deep_sleep=100_000)
    assert weighted_seconds(used, PLAN) == 1 + 2 + 2
    assert weighted_seconds(used, replace(PLAN, rate_idle=0.5, rate_deep_sleep=0.0)) == 5
