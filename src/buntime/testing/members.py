"""A fake fleet for tests, in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from buntime.fleet.budget import BUDGET
from buntime.fleet.members import (
    DRAIN_SECONDS,
    Description,
    Fenced,
    HostState,
    IdTaken,
    Member,
    Membership,
    SessionCounts,
)


@dataclass(frozen=True, slots=True)
class _Row:
    member: Member
    lease_until: float


class FakeMembers:
    """`fleet.members.Members`. `clock`: the database's, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._drains: dict[str, float] = {}  # host → when it ends what is awake
        self.counts: dict[str, SessionCounts] = {}

    async def join(self, host: str, description: Description, after: int = 0) -> Membership:
        before = self._rows.get(host)
        if before and self._runs(before) and before.member.description.address != description.address:
            raise IdTaken
        incarnation = max(after, before.member.incarnation if before else 0) + 1
        state = before.member.state if before else HostState.ACTIVE
        joined = Member(host, incarnation, 0, 0, taken_over=False, state=state, description=description)
        self._put(replace(joined, joined_at=self._clock()), BUDGET.lease)
        return Membership(host, incarnation)

    async def renew(self, me: Membership, capacity: Mapping[str, object]) -> HostState:
        member = self._mine(me)
        description = replace(member.description, capacity=capacity)
        self._put(replace(member, renewals=member.renewals + 1, description=description), BUDGET.lease)
        return member.state

    async def leave(self, me: Membership) -> None:
        member = self._mine(me)
        self._put(replace(member, incarnation=member.incarnation + 1, taken_over=True, has_left=True), 0)

    async def take_over(self, me: Membership, lost: Member) -> bool:
        self._mine(me)
        row = self._rows.get(lost.id)
        if row is None or row.member.taken_over or self._runs(row):
            return False
        if (row.member.incarnation, row.member.renewals) != (lost.incarnation, lost.renewals):
            return False
        self._put(replace(row.member, incarnation=row.member.incarnation + 1, taken_over=True), 0)
        return True

    async def now(self) -> float:
        return self._clock()

    async def list(self) -> Sequence[Member]:
        now = self._clock()
        rows = sorted(self._rows.items())
        return [
            replace(row.member, lease_left=row.lease_until - now, drain_left=self._left(host)) for host, row in rows
        ]

    async def mark(self, host: str, state: HostState, within: float = DRAIN_SECONDS) -> bool:
        row = self._rows.get(host)
        if row is None:
            return False
        self._rows[host] = replace(row, member=replace(row.member, state=state))
        self._drains.pop(host, None)
        if state is HostState.DRAINING:
            self._drains[host] = self._clock() + within
        return True

    async def count_sessions(self) -> Mapping[str, SessionCounts]:
        return dict(self.counts)

    def _left(self, host: str) -> float | None:
        until = self._drains.get(host)
        return None if until is None else until - self._clock()

    def _mine(self, me: Membership) -> Member:
        row = self._rows.get(me.host)
        if row is None or row.member.incarnation != me.incarnation or row.lease_until <= self._clock():
            raise Fenced
        return row.member

    def _runs(self, row: _Row) -> bool:
        return 0 < row.lease_until - self._clock() <= BUDGET.lease

    def _put(self, member: Member, lease: float) -> None:
        self._rows[member.id] = _Row(member, self._clock() + lease)
