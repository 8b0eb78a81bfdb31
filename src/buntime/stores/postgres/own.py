"""The sessions of this host, in memory.

While the host may act, nobody else changes the row of a session that it owns: others need its lease to be over. So the
host knows what the row has, and reads it from here. Each of these rules keeps what is here equal to the row:

- It is read only while the host may act, as the incarnation under which it was learned. A host that lost its lease
  forgets all.
- A change forgets the session before it begins. What the change has stored is learned after the commit.
- What overlaps a change teaches nothing: another change, or a read that began before its end.
- After a change whose outcome may be unknown, the session is read from the database until a later change of it
  succeeds. The commit may still come. The later change waits for the same row, so it comes after.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from buntime.errors import Unavailable
from buntime.fleet.members import Fenced, Membership
from buntime.session import Session


class OwnSessions:
    def __init__(self, membership: Callable[[], Membership]) -> None:
        """`membership`: as which member this host acts now. Raises Fenced while it is none."""
        self._membership = membership
        self._me: Membership | None = None  # as which what is known was learned
        self._known: dict[str, Session] = {}
        self._changes: dict[str, list[Change]] = {}  # under way, by session
        self._unsure: set[str] = set()  # after a change whose outcome may be unknown
        self._reads: set[Read] = set()  # under way
        self._changed: set[str] | None = None  # since `take_changed`. None: it was not asked yet as this member

    def __len__(self) -> int:
        return len(self._known)

    def get(self, session_id: str) -> Session | None:
        """None: ask the database."""
        return self._known.get(session_id) if self._is_current() else None

    @contextmanager
    def reading(self) -> Iterator["Read"]:
        """For the time of a question to the database."""
        self._is_current()
        read = Read(self._me, {*self._changes, *self._unsure})
        self._reads.add(read)
        try:
            yield read
        finally:
            self._reads.discard(read)

    def learn(self, read: "Read", sessions: Iterable[Session]) -> None:
        """What the question has found, of which each session has the newest activity. Call this within the block."""
        if not self._is_current() or read.me != self._me or self._me is None:
            return
        mine = (session for session in sessions if session.host == self._me.host)
        self._known.update({session.id: session for session in mine if session.id not in read.spoiled})

    @contextmanager
    def changing(self, session_id: str) -> Iterator["Change"]:
        """For the time of a change. Nothing is known of the session within the block."""
        self._is_current()
        change, others = Change(self._me), self._changes.setdefault(session_id, [])
        for other in others:
            other.is_alone, change.is_alone = False, False
        others.append(change)
        self._forget(session_id)
        try:
            yield change
        except Exception as failure:
            if isinstance(failure, Unavailable):
                self._note_unsure(session_id)
            raise  # what else the database has refused was not stored
        except BaseException:
            self._note_unsure(session_id)
            raise
        else:
            if change.after is not None:
                self._note_changed((session_id,))
            if change.is_alone:
                self._unsure.discard(session_id)
                self._learn_change(change)
        finally:
            others.remove(change)
            if not others:
                del self._changes[session_id]

    def take_changed(self) -> set[str] | None:
        """Sessions that this host has changed since the last call, or may have. Their newest versions are what counts.
        None, for the first call as this member: ask the database for all. Then changes from now on are noted."""
        if not self._is_current():
            return None
        changed, self._changed = self._changed, set(self._unsure)  # whose change may still come
        return changed

    def put_back(self, changed: Iterable[str] | None) -> None:
        """What was taken could not be read: `take_changed` returns it again."""
        if changed is None:
            self._changed = None
        else:
            self._note_changed(changed)

    def has_touched(self, times: Mapping[str, int]) -> None:
        """Activity is in the rows now: session → Unix seconds."""
        for session_id, at in times.items():
            for change in self._changes.get(session_id, ()):
                change.touched = max(change.touched, at)
            if (known := self._known.get(session_id)) is not None:
                self._known[session_id] = active_since(known, at)
        self._spoil(times)

    def _note_unsure(self, session_id: str) -> None:
        self._unsure.add(session_id)
        self._note_changed((session_id,))

    def _note_changed(self, session_ids: Iterable[str]) -> None:
        if self._changed is not None:
            self._changed.update(session_ids)

    def _learn_change(self, change: "Change") -> None:
        after = change.after
        if after is None or not self._is_current() or change.me != self._me or self._me is None:
            return
        if after.host == self._me.host:
            self._known[after.id] = active_since(after, change.touched)

    def _forget(self, session_id: str) -> None:
        self._known.pop(session_id, None)
        self._spoil((session_id,))

    def _spoil(self, session_ids: Iterable[str]) -> None:
        for read in self._reads:
            read.spoiled.update(session_ids)

    def _is_current(self) -> bool:
        """Forgets everything if the host has become another member. False: it may not act now."""
        try:
            me = self._membership()
        except Fenced:
            return False
        if me != self._me:
            self._me = me
            self._known.clear()
            self._unsure.clear()
            self._changed = None
        return True


class Read:
    """A question to the database that is under way."""

    def __init__(self, me: Membership | None, spoiled: set[str]) -> None:
        self.me = me
        self.spoiled = spoiled  # sessions of which the answer may be old


class Change:
    """A change of one session that is under way. `after`: what it has stored, which its block sets."""

    def __init__(self, me: Membership | None) -> None:
        self.me = me
        self.after: Session | None = None
        self.is_alone = True  # no other change of the session has overlapped it
        self.touched = 0  # activity that was stored meanwhile


def active_since(session: Session, at: int) -> Session:
    """With activity at that time, if it is later than the last one."""
    return session if at <= session.last_active else replace(session, last_active=at)
