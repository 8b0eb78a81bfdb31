"""Random sequences of changes and notes give the same usage on SQLite and the fake, also after restarts, and windows
without a gap that add up to what was noted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from buntime.ports import Store
from buntime.session import Event, Session, State
from buntime.usage import DAY_MS, NOTHING, Amounts, Counters, Moment, Reading, Runs, Window
from tests.contracts.examples import NOW, session
from tests.contracts.twins import OnPostgres, Twins

ACCOUNTS = ("acc_a", "acc_b")
SESSIONS = st.sampled_from(["ses_1", "ses_2", "ses_3"])
SECONDS = st.sampled_from([0, 1, 59, 3600, 86_400, 40 * 86_400])
USED = st.integers(0, 9)
DAY = NOW * 1000 // DAY_MS
DAYS = st.integers(DAY - 2, DAY + 100)
NEXT = {State.ACTIVE: (Event.SUSPEND, Event.DELETE), State.IDLE: (Event.RESUME, Event.DELETE)}


class SameUsage(Twins):
    def __init__(self) -> None:
        super().__init__()
        self.passed = 0  # seconds
        self.cpu = 0

    def reading(self, sandbox: str, seconds: int, used: int, known: bool) -> Reading:
        self.passed, self.cpu = self.passed + seconds, self.cpu + used
        counters = Counters(sandbox, self.cpu, self.cpu, 4096) if known else None
        moment = Moment(1000 * (NOW + self.passed), "boot", 1000 * self.passed)
        return Reading(moment, counters, disk=2048, runs=Runs("server", self.cpu))

    @rule(name=SESSIONS, owner=st.sampled_from(ACCOUNTS), known=st.booleans())
    def add_session(self, name: str, owner: str, known: bool) -> None:
        new = session(name, owner)
        reading = self.reading(new.sandbox, 0, 0, known)
        self.same(
            self.real.add_session(new, None, 9, reading=reading), self.fake.add_session(new, None, 9, reading=reading)
        )

    @rule(name=SESSIONS, choice=st.integers(0, 2), seconds=SECONDS, used=USED, known=st.booleans())
    def change_session(self, name: str, choice: int, seconds: int, used: int, known: bool) -> None:
        old = self.fake.sessions.get(name)
        if old is None or old.state is State.DELETING:
            return
        new = self.changed(old, choice)
        reading = self.reading(old.sandbox, seconds, used, known)
        self.same(
            self.real.change_session(old, new, reading=reading), self.fake.change_session(old, new, reading=reading)
        )

    @staticmethod
    def changed(old: Session, choice: int) -> Session:
        if old.state is State.DEEP_SLEEP:
            return replace(old.after(Event.WAKE), sandbox=f"{old.sandbox}x")
        return old.down() if choice == 2 else old.after(NEXT[old.state][choice])

    @rule(name=SESSIONS, seconds=SECONDS, used=USED, known=st.booleans(), of_before=st.booleans())
    def note(self, name: str, seconds: int, used: int, known: bool, of_before: bool) -> None:
        found = self.fake.sessions.get(name)
        sandbox = "sb_before" if of_before or found is None else found.sandbox
        readings = {name: self.reading(sandbox, seconds, used, known)}
        self.same(self.real.note_usage(readings), self.fake.note_usage(readings))

    @rule(name=SESSIONS)
    def remove_session(self, name: str) -> None:
        self.same(self.real.remove_session(name), self.fake.remove_session(name))

    @rule(day=DAYS)
    def drop(self, day: int) -> None:
        for store in (self.real, self.fake):
            self.run(store.drop_usage(day))

    @rule(first=DAYS, days=st.integers(0, 90), limit=st.integers(1, 3))
    def sum_up(self, first: int, days: int, limit: int) -> None:
        last = first + days
        for owner in ACCOUNTS:
            found = self.run(by_session(self.real, owner, first, last, limit))
            assert found == self.run(by_session(self.fake, owner, first, last, limit))
            by_day = self.run(self.real.usage_by_day(owner, first, last))
            assert sum((used for _, used in found), NOTHING) == sum((used for _, used in by_day), NOTHING)

    @invariant()
    def say_the_same(self) -> None:
        for owner in ACCOUNTS:
            windows = self.run(all_windows(self.real, owner))
            assert windows == self.run(all_windows(self.fake, owner))
            days = [self.run(store.usage_by_day(owner, 0, 100_000)) for store in (self.real, self.fake)]
            assert days[0] == days[1]


async def all_windows(store: Store, owner: str) -> Sequence[Window]:
    found: list[Window] = []
    place = 0
    while True:
        page, place = await store.list_windows(owner, place, 2)
        if not page:
            return found
        found += page


async def by_session(store: Store, owner: str, first: int, last: int, limit: int) -> Sequence[tuple[str, Amounts]]:
    found: list[tuple[str, Amounts]] = []
    after: str | None = ""
    while after is not None:
        page, after = await store.usage_by_session(owner, first, last, after, limit)
        found += page
    return found


TestSameUsage = SameUsage.TestCase
TestSameUsage.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class SameUsageOnPostgres(OnPostgres, SameUsage):
    pass


ON_POSTGRES = SameUsageOnPostgres.TestCase
ON_POSTGRES.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestSameUsageOnPostgres = pytest.mark.postgres(pytest.mark.usefixtures("postgres_url")(ON_POSTGRES))
