"""A fake store for tests. It keeps the contract and nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from buntime.account import Account, AccountStatus, Key
from buntime.errors import (
    NameTaken,
    ResourceLimitExceeded,
    SessionLimitExceeded,
    SessionNotFound,
    StaleSession,
    TooManyTokens,
)
from buntime.event import AccountEvent
from buntime.ports import Answer, PreviewToken
from buntime.session import Session, State
from buntime.snapshot import Layer, Snapshot
from buntime.testing.usage import FakeUsage
from buntime.usage import Reading


class FakeStore(FakeUsage):
    """`ports.Store` in dictionaries. A change happens between two awaits, so it is atomic."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, Key] = {}
        self.tokens: dict[str, PreviewToken] = {}  # by hash
        self.seen: dict[str, int] = {}  # session id → version that `changed_sessions` returned last

    async def close(self) -> None:
        return None

    # accounts and keys

    async def add_account(self, account: Account) -> None:
        if account.id in self.accounts:
            raise ValueError(f"account id {account.id} is taken")
        self.accounts[account.id] = account

    async def get_account(self, account_id: str) -> Account | None:
        return self.accounts.get(account_id)

    async def inactive_accounts(self) -> Sequence[Account]:
        return [account for account in await self.list_accounts() if account.status is not AccountStatus.ACTIVE]

    async def list_accounts(self) -> Sequence[Account]:
        return sorted(self.accounts.values(), key=lambda account: (account.created_at, account.id))

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        account = self.accounts.get(account_id)
        if account is None or account.status is AccountStatus.DELETED:
            return False
        self.accounts[account_id] = replace(account, status=status)
        return True

    async def add_key(
        self,
        key: Key,
        answer: Answer | None = None,
        limit: int | None = None,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        theirs = [other for other in self.keys.values() if other.account == key.account]
        valid = [other for other in theirs if other.is_valid(key.created_at)]
        if limit is not None and len(valid) >= limit:
            raise ResourceLimitExceeded("keys", limit, "account", "")
        taken = key.id in self.keys or any(other.hash == key.hash for other in self.keys.values())
        if taken or key.account not in self.accounts:
            raise ValueError(f"key {key.id}: id or hash is taken, or no account {key.account}")
        if answer is not None:
            self._add_first(answer)
        if limit is not None:
            made = {other for other in theirs if other.maker is not None}
            ended = sorted(made - set(valid), key=lambda other: (-other.created_at, other.id))
            for other in ended[limit:]:
                del self.keys[other.id]
        self.keys[key.id] = key
        self.note_events(events)

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        found = [key for key in self.keys.values() if account_id in (None, key.account)]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def revoke_key(self, key_id: str, now: int, events: Sequence[AccountEvent] = ()) -> bool:
        key = self.keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return False
        self.keys[key_id] = replace(key, revoked_at=now)
        self.note_events(events)
        return True

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        for key in self.keys.values():
            if key.hash == key_hash and key.revoked_at is None:
                return key, self.accounts[key.account]
        return None

    # sessions

    async def add_session(
        self,
        session: Session,
        answer: Answer | None,
        limit: int,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> None:
        await self._require_free(session)
        active = await self.count_sessions(session.account)
        if active >= limit:
            raise SessionLimitExceeded("", limit, active)
        await self._require_image(session)
        if session.id in self.sessions:
            raise ValueError(f"session id {session.id} is taken")
        if answer is not None:
            self._add_first(answer)
        self.sessions[session.id] = session
        self.note_events(events)
        self._begin(session, reading)

    async def get_session(self, session_id: str) -> Session | None:
        return self.sessions.get(session_id)

    async def named_session(self, account_id: str, name: str) -> Session | None:
        return next((session for session in self._not_deleting(account_id) if session.name == name), None)

    async def list_sessions(
        self,
        account_id: str,
        *,
        now: int,
        state: State | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Session], int]:
        found = [
            session
            for session in self._not_deleting(account_id)
            if not session.has_expired(now)
            and state in (None, session.state)
            and name in (None, session.name)
            and (metadata or {}).items() <= _texts(session.metadata).items()
        ]
        found.sort(key=lambda session: (-session.created_at, session.id))
        return found[offset : offset + limit], len(found)

    async def count_sessions(self, account_id: str) -> int:
        return len(self._not_deleting(account_id))

    async def all_sessions(self) -> Sequence[Session]:
        return list(self.sessions.values())

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        return [session for session in self.sessions.values() if session.account == account_id]

    async def account_sandboxes(self, account_id: str) -> Sequence[str]:
        return [one.sandbox for one in await self.account_sessions(account_id) if one.state is not State.DEEP_SLEEP]

    async def count_states(self) -> Mapping[State, int]:
        states = [session.state for session in self.sessions.values()]
        return {state: states.count(state) for state in State}

    async def changed_sessions(self) -> Sequence[Session]:
        changed = [session for session in self.sessions.values() if self.seen.get(session.id) != session.version]
        self.seen = {session.id: session.version for session in self.sessions.values()}
        return changed

    async def change_session(
        self,
        old: Session,
        new: Session,
        answer: Answer | None = None,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> Session:
        changed = self._changed(old, new)
        await self._require_free(changed)
        if answer is not None:
            self._add_first(answer)
        self._follow(self.sessions[old.id], changed, reading)
        self.sessions[old.id] = changed
        self.note_events(events)
        return changed

    def _changed(self, old: Session, new: Session) -> Session:
        if (old.id, old.account) != (new.id, new.account):
            raise ValueError("a session's id and account cannot change")
        stored = self.sessions.get(old.id)
        if stored is None or stored.version != old.version:
            raise StaleSession(f"{old.id} has no version {old.version} any more")
        last_active = max(stored.last_active, new.last_active)
        return replace(new, version=old.version + 1, last_active=last_active)

    async def release(self, session: Session) -> bool:
        """Implements `lifecycle.draining.Releases`."""
        stored = self.sessions.get(session.id)
        if stored is None or not session.host or (stored.host, stored.epoch) != (session.host, session.epoch):
            return False
        if stored.state is not State.DEEP_SLEEP or not stored.archived:
            return False
        self.sessions[session.id] = replace(stored, host="", version=stored.version + 1)
        return True

    async def touch_session(self, session_id: str, now: int) -> None:
        session = self.sessions.get(session_id)
        if session is not None:
            self.sessions[session_id] = replace(session, last_active=max(session.last_active, now))

    async def remove_session(self, session_id: str) -> None:
        self.sessions.pop(session_id, None)
        self.seen.pop(session_id, None)
        self.open_windows.pop(session_id, None)
        await self.revoke_preview_tokens(session_id)

    async def restore_session(
        self,
        old: Session,
        new: Session,
        before: Snapshot,
        layer: Layer,
        answer: Answer | None,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> Session:
        if new.image != old.image:
            self._require_kept(new.image, new.image_name)
        changed = self._changed(old, new)
        self._require_new_layer(layer)
        others = {one.id: one for one in self.snapshots.values() if not (one.is_automatic and one.session == new.id)}
        if before.id in others:
            raise ValueError(f"snapshot id {before.id} is taken")
        if answer is not None:
            self._add_first(answer)
        self._follow(self.sessions[old.id], changed, reading)
        self.sessions[new.id] = changed
        self.layers[layer.id] = layer
        self.snapshots = others | {before.id: before}
        self.note_events(events)
        return changed

    # preview tokens

    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        session = self.sessions.get(token.session)
        if session is None or session.state is State.DELETING:
            raise SessionNotFound(token.session)
        others = [other for other in self.tokens.values() if other.session == token.session]
        if sum(other.expires_at > token.created_at for other in others) >= limit:
            raise TooManyTokens(limit)
        if token.hash in self.tokens:
            raise ValueError("the token's hash is taken")
        if answer is not None:
            self._add_first(answer)
        self.tokens[token.hash] = token

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        return self.tokens.get(token_hash)

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        return self._drop([t for t in self.tokens.values() if t.session == session_id and token_hash in (None, t.hash)])

    async def drop_preview_tokens(self, now: int) -> int:
        return self._drop([token for token in self.tokens.values() if token.expires_at <= now])

    def _drop(self, tokens: Sequence[PreviewToken]) -> int:
        for token in tokens:
            del self.tokens[token.hash]
        return len(tokens)

    # idempotency

    async def begin_key(self, account_id: str, key: str, fingerprint: str, now: int, *, repeatable: bool) -> None:
        return None

    async def end_key(self, account_id: str, key: str) -> None:
        return None

    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        return self.answers.get((account_id, key))

    async def add_answer(self, answer: Answer) -> None:
        self.answers.setdefault((answer.account, answer.key), answer)

    async def change_answer(self, answer: Answer) -> None:
        first = self.answers.get((answer.account, answer.key))
        if first is not None:
            self.answers[answer.account, answer.key] = replace(first, body=answer.body)

    async def drop_answers(self, before: int) -> int:
        old = [name for name, answer in self.answers.items() if answer.created_at < before]
        for name in old:
            del self.answers[name]
        return len(old)

    async def _require_free(self, session: Session) -> None:
        if session.name is None or session.state is State.DELETING:
            return
        holder = await self.named_session(session.account, session.name)
        if holder is not None and holder.id != session.id:
            raise NameTaken(session.name, holder.id)

    def _not_deleting(self, account_id: str) -> list[Session]:
        return [
            session
            for session in self.sessions.values()
            if session.account == account_id and session.state is not State.DELETING
        ]


def _texts(metadata: Mapping[str, object]) -> dict[str, str]:
    """The values that a filter can name, as text."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
        if isinstance(value, str | bool | int | float)
    }
