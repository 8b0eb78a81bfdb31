"""Sessions in memory, by id and by account."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from buntime.session import Session, State


class SessionIndex:
    """What the store has committed, plus activity that is not written yet."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_account: dict[str, set[str]] = {}
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        self._by_id[session.id] = session
        self._by_account.setdefault(session.account, set()).add(session.id)

    def change(self, new: Session, version: int) -> Session:
        """Takes the place of the old one; activity noted meanwhile is kept."""
        old = self._by_id[new.id]
        session = replace(new, version=version, last_active=max(old.last_active, new.last_active))
        self._by_id[new.id] = session
        return session

    def touch(self, session_id: str, now: int) -> bool:
        """False where there is no such session or nothing changes."""
        old = self._by_id.get(session_id)
        if old is None or old.last_active >= now:
            return False
        self._by_id[session_id] = replace(old, last_active=now)
        return True

    def remove(self, session_id: str) -> None:
        session = self._by_id.pop(session_id, None)
        if session is None:
            return
        ids = self._by_account[session.account]
        ids.discard(session_id)
        if not ids:
            del self._by_account[session.account]

    def get(self, session_id: str) -> Session | None:
        return self._by_id.get(session_id)

    def all(self) -> Sequence[Session]:
        return list(self._by_id.values())

    def count(self, account_id: str) -> int:
        return sum(session.state is not State.DELETING for session in self._of(account_id))

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
        found = [
            session
            for session in self._of(account_id)
            if session.state is not State.DELETING
            and session.expires_at > now
            and (state is None or session.state is state)
            and all(_matches(session.metadata.get(key), text) for key, text in metadata.items())
        ]
        found.sort(key=lambda session: (-session.created_at, session.id))
        return found[offset : offset + limit], len(found)

    def _of(self, account_id: str) -> Iterable[Session]:
        return (self._by_id[session_id] for session_id in self._by_account.get(account_id, ()))


def _matches(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    return isinstance(value, bool | int | float) and json.dumps(value) == text
