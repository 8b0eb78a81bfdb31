"""Implements `ports.Store` with a SQLite file."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from buntime.account import Account, AccountStatus, Key
from buntime.event import AccountEvent
from buntime.ports import Answer, PreviewToken
from buntime.session import Session, State
from buntime.snapshot import Layer, Snapshot
from buntime.stores.rows.answers import pack_aside, unpack_aside
from buntime.stores.rows.sessions import require_same
from buntime.stores.sqlite import accounts, answers, database, preview_tokens, sessions, snapshots
from buntime.stores.sqlite.index import SessionIndex
from buntime.stores.sqlite.log import LogCleaner
from buntime.stores.sqlite.noted import NotedUsage
from buntime.stores.sqlite.told import DROP_AT_ONCE
from buntime.stores.sqlite.writer import Writer
from buntime.usage import Reading


class SqliteStore(NotedUsage):
    """Implements `ports.Store`.

    All sessions are in memory, so reading them touches no disk. The memory changes on the event loop after each commit,
    in the order of the commits. A read-only connection reads everything else from the file on the loop; such a read
    takes microseconds. Accounts and keys are cached until this or another process changes any.
    """

    def __init__(
        self, path: Path, descriptor: int, reader: sqlite3.Connection, writer: Writer, index: SessionIndex
    ) -> None:
        """Use `open`."""
        super().__init__(path, reader, writer, LogCleaner(path), index)
        self._descriptor = descriptor
        self._seen: int | None = -1  # changes of accounts and keys, of which the two caches know
        self._keys: dict[str, tuple[Key, Account]] = {}
        self._accounts: dict[str, Account] = {}
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the store, and creates it if it does not exist. Its directory must exist.

        Raises StoreDamaged, StoreTooNew, StoreInUse (one server at a time) and other StoreUnusable.
        """
        descriptor, reader, connection, index = await asyncio.to_thread(_open, path)
        return cls(path, descriptor, reader, Writer(connection), index)

    async def close(self) -> None:
        if self._closing is None:
            self._flush_noted()
            self._closing = asyncio.create_task(self._close(), name="store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._end_changes()
        await self._log.close()
        self._reader.close()
        os.close(self._descriptor)

    # accounts and keys

    async def add_account(self, account: Account) -> None:
        await self._change(partial(accounts.add_account, account=account))

    async def get_account(self, account_id: str) -> Account | None:
        self._forget_if_changed()
        account = self._accounts.get(account_id) or accounts.get_account(self._reader, account_id)
        if account is not None:
            self._accounts[account_id] = account
        return account

    async def inactive_accounts(self) -> Sequence[Account]:
        return accounts.inactive_accounts(self._reader)

    async def list_accounts(self) -> Sequence[Account]:
        return accounts.list_accounts(self._reader)

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        return await self._change(partial(accounts.set_account_status, account_id=account_id, status=status))

    async def add_key(
        self,
        key: Key,
        answer: Answer | None = None,
        limit: int | None = None,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        await self._change_and_answer(answer, partial(accounts.add_key, key=key, limit=limit), told=events)

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        return accounts.list_keys(self._reader, account_id)

    async def revoke_key(self, key_id: str, now: int, events: Sequence[AccountEvent] = ()) -> bool:
        return await self._change_if_done(partial(accounts.revoke_key, key_id=key_id, now=now), events)

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        self._forget_if_changed()
        found = self._keys.get(key_hash) or accounts.find_key(self._reader, key_hash)
        if found is not None:  # unknown keys are not cached: anyone can invent them
            self._keys[key_hash] = found
        return found

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
        work = partial(sessions.add_session, session=session, limit=limit, reading=reading)
        await self._change_and_answer(answer, work, lambda _: self._index.add(session), events)

    async def get_session(self, session_id: str) -> Session | None:
        return self._index.get(session_id)

    async def named_session(self, account_id: str, name: str) -> Session | None:
        return self._index.named(account_id, name)

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
        if name is not None:
            return self._index.page_named(account_id, now, state, name, metadata or {}, limit, offset)
        return self._index.page(account_id, now, state, metadata or {}, limit, offset)

    async def count_sessions(self, account_id: str) -> int:
        return self._index.count(account_id)

    async def all_sessions(self) -> Sequence[Session]:
        return self._index.all()

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        return self._index.of_account(account_id)

    async def account_sandboxes(self, account_id: str) -> Sequence[str]:
        return [one.sandbox for one in self._index.of_account(account_id) if one.state is not State.DEEP_SLEEP]

    async def count_states(self) -> Mapping[State, int]:
        return self._index.states()

    async def changed_sessions(self) -> Sequence[Session]:
        return self._index.changed()

    async def change_session(
        self,
        old: Session,
        new: Session,
        answer: Answer | None = None,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> Session:
        require_same(old, new)

        def committed(_: None) -> Session:
            if new.state is State.DELETING:
                self._log.due()
            return self._index.change(new, old.version + 1)

        work = partial(sessions.change_session, old=old, new=new, reading=reading)
        return await self._change_and_answer(answer, work, committed, events)

    async def touch_session(self, session_id: str, now: int) -> None:
        if self._index.touch(session_id, now) and self._closing is None:
            self._note_activity(session_id, now)

    async def remove_session(self, session_id: str) -> None:
        def committed(_: None) -> None:
            self._log.due()
            self._index.remove(session_id)

        await self._change(partial(sessions.remove_session, session_id=session_id), committed)

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
        require_same(old, new)

        def committed(_: None) -> Session:
            self._log.due()  # for the automatic snapshots from before
            return self._index.change(new, old.version + 1)

        work = partial(snapshots.restore_session, old=old, new=new, before=before, layer=layer, reading=reading)
        return await self._change_and_answer(answer, work, committed, events)

    # preview tokens

    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        work = partial(preview_tokens.add_preview_token, token=token, limit=limit)
        await self._change_and_answer(answer, work)

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        return preview_tokens.find_preview_token(self._reader, token_hash)

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        work = partial(preview_tokens.revoke_preview_tokens, session_id=session_id, token_hash=token_hash)
        return await self._change(work)

    async def drop_preview_tokens(self, now: int) -> int:
        return await self._change(partial(preview_tokens.drop_preview_tokens, now=now))

    def note_events(self, events: Sequence[AccountEvent], stored: Callable[[], None] | None = None) -> None:
        if self._closing is None:
            super().note_events(events, stored)

    # idempotency

    async def begin_key(self, account_id: str, key: str, fingerprint: str, now: int, *, repeatable: bool) -> None:
        return None

    async def end_key(self, account_id: str, key: str) -> None:
        return None

    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        stored = answers.find_answer(self._reader, account_id, key)
        return None if stored is None else await unpack_aside(stored)

    async def add_answer(self, answer: Answer) -> None:
        await self._change(partial(answers.add_answer, stored=await pack_aside(answer)))

    async def change_answer(self, answer: Answer) -> None:
        await self._change(partial(answers.change_answer, stored=await pack_aside(answer)))

    async def drop_answers(self, before: int) -> int:
        return await self._drop(partial(answers.drop_answers, before=before, most=DROP_AT_ONCE))

    def _forget_if_changed(self) -> None:
        seen = accounts.count_changes(self._reader)
        if seen is None or seen != self._seen:
            self._keys.clear()
            self._accounts.clear()
            self._seen = seen


def _open(path: Path) -> tuple[int, sqlite3.Connection, sqlite3.Connection, SessionIndex]:
    """Claims, migrates, checks and reads the store. Blocks."""
    descriptor = database.lock(path)
    connections: list[sqlite3.Connection] = []
    try:
        for _ in ("reader", "writer"):
            connections.append(database.connect(path))
        reader, writer = connections
        database.check(reader, path)
        return descriptor, reader, writer, _read_sessions(reader, path)
    except BaseException:
        for connection in connections:
            connection.close()
        os.close(descriptor)
        raise


def _read_sessions(reader: sqlite3.Connection, path: Path) -> SessionIndex:
    try:
        with database.failures_named(path):
            return SessionIndex(sessions.all_sessions(reader))
    except ValueError as wrong:
        raise database.StoreDamaged(path, wrong) from wrong
