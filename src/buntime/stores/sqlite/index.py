"""Sessions in memory, by id and by account, sorted for pages."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from buntime.session import Session, State
from buntime.stores.rows.sessions import has_metadata

_Rank = tuple[float, str]  # (negative creation time, id), so that the newest sorts first; or (expiry, id)


class SessionIndex:
    """What the store has committed, plus activity that is not yet written.

    The cost of a change or of an unfiltered page hardly grows with the number of sessions.
    """

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_account: dict[str, _Orders] = {}
        self._by_name: dict[tuple[str, str], str] = {}  # account and name → id, of those that are not DELETING
        self._changed: dict[str, None] = {}  # ids in the order of their changes
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        self._by_id[session.id] = session
        self._by_account.setdefault(session.account, _Orders()).put(session)
        self._put_name(session)
        self._changed[session.id] = None

    def change(self, new: Session, version: int) -> Session:
        """Replaces the old session. Keeps activity that was noted meanwhile."""
        old = self._by_id[new.id]
        session = replace(new, version=version, last_active=max(old.last_active, new.last_active))
        self._by_id[new.id] = session
        orders = self._by_account[session.account]
        orders.drop(old)
        orders.put(session)
        self._drop_name(old)
        self._put_name(session)
        self._changed[session.id] = None
        return session

    def touch(self, session_id: str, now: int) -> bool:
        """Returns False if the session does not exist or nothing changes."""
        old = self._by_id.get(session_id)
        if old is None or old.last_active >= now:
            return False
        self._by_id[session_id] = replace(old, last_active=now)
        return True

    def remove(self, session_id: str) -> None:
        session = self._by_id.pop(session_id, None)
        if session is None:
            return
        self._changed.pop(session_id, None)
        orders = self._by_account[session.account]
        orders.drop(session)
        self._drop_name(session)
        if not orders:
            del self._by_account[session.account]

    def get(self, session_id: str) -> Session | None:
        return self._by_id.get(session_id)

    def named(self, account_id: str, name: str) -> Session | None:
        session_id = self._by_name.get((account_id, name))
        return None if session_id is None else self._by_id[session_id]

    def all(self) -> Sequence[Session]:
        return list(self._by_id.values())

    def states(self) -> Mapping[State, int]:
        return {state: sum(len(orders.newest[state]) for orders in self._by_account.values()) for state in State}

    def changed(self) -> Sequence[Session]:
        """See `ports.Store.changed_sessions`."""
        changed, self._changed = self._changed, {}
        return [self._by_id[session_id] for session_id in changed]

    def of_account(self, account_id: str) -> Sequence[Session]:
        orders = self._by_account.get(account_id)
        if orders is None:
            return []
        return self._at([*orders.newest[None], *orders.newest[State.DELETING]])

    def count(self, account_id: str) -> int:
        orders = self._by_account.get(account_id)
        return 0 if orders is None else len(orders.newest[None])

    def page(
        self,
        account_id: str,
        now: int,
        state: State | None,
        metadata: Mapping[str, str],
        limit: int,
        offset: int,
    ) -> tuple[Sequence[Session], int]:
        """See `ports.Store.list_sessions`."""
        orders = self._by_account.get(account_id)
        if orders is None or state is State.DELETING:
            return [], 0
        ranks = orders.newest[state]
        if metadata:
            found = [
                session
                for session in self._at(ranks)
                if not session.has_expired(now) and has_metadata(session, metadata)
            ]
            return found[offset : offset + limit], len(found)
        ended = [session for session in self._at(orders.ended(now)) if state in (None, session.state)]
        for position in sorted(bisect_left(ranks, _by_age(session)) for session in ended):
            offset += position <= offset
        found = self._at(ranks[offset : offset + limit + len(ended)])
        return [session for session in found if not session.has_expired(now)][:limit], len(ranks) - len(ended)

    def page_named(
        self,
        account_id: str,
        now: int,
        state: State | None,
        name: str,
        metadata: Mapping[str, str],
        limit: int,
        offset: int,
    ) -> tuple[Sequence[Session], int]:
        """The same for the one session of a name, if there is one."""
        session = self.named(account_id, name)
        if session is None or session.has_expired(now) or state not in (None, session.state):
            return [], 0
        found = [session] if has_metadata(session, metadata) else []
        return found[offset : offset + limit], len(found)

    def _put_name(self, session: Session) -> None:
        if session.name is not None and session.state is not State.DELETING:
            self._by_name[session.account, session.name] = session.id

    def _drop_name(self, session: Session) -> None:
        if session.name is not None and self._by_name.get((session.account, session.name)) == session.id:
            del self._by_name[session.account, session.name]

    def _at(self, ranks: Iterable[_Rank]) -> list[Session]:
        return [self._by_id[session_id] for _, session_id in ranks]


class _Orders:
    """The sorted sessions of one account. Few of them are expired but not yet deleted."""

    def __init__(self) -> None:
        self.newest: dict[State | None, list[_Rank]] = {state: [] for state in (None, *State)}  # None: not DELETING
        self._ends: list[_Rank] = []  # not DELETING, earliest first

    def __bool__(self) -> bool:
        return bool(self.newest[None] or self.newest[State.DELETING])

    def put(self, session: Session) -> None:
        for order, rank in self._ranks(session):
            insort(order, rank)

    def drop(self, session: Session) -> None:
        for order, rank in self._ranks(session):
            del order[bisect_left(order, rank)]

    def ended(self, now: int) -> Sequence[_Rank]:
        return self._ends[: bisect_right(self._ends, float(now), key=lambda rank: rank[0])]

    def _ranks(self, session: Session) -> Iterable[tuple[list[_Rank], _Rank]]:
        age = _by_age(session)
        yield self.newest[session.state], age
        if session.state is not State.DELETING:
            yield self.newest[None], age
            yield self._ends, (session.ends_at, session.id)


def _by_age(session: Session) -> _Rank:
    return -session.created_at, session.id
