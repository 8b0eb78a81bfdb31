"""The store in one SQLite file on this host."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Self, cast

from buntime.account import Account, AccountStatus, Key
from buntime.errors import IdempotencyInProgress
from buntime.image import NamedImage
from buntime.ports import Answer, PreviewToken
from buntime.session import Session, State
from buntime.stores import accounts, answers, database, images, preview_tokens, sessions
from buntime.stores.index import SessionIndex
from buntime.stores.log import LogCleaner
from buntime.stores.writer import Outcome, Writer

TOUCH_SECONDS = 2.0  # how long noted activity may stay unwritten
INLINE_BODY = 64 << 10  # bytes; a thread compresses larger bodies, so that the loop does not block
DROP_AT_ONCE = 500  # answers deleted in one commit, so that other changes can run in between


class SqliteStore:
    """Implements `ports.Store`.

    All sessions are in memory, so reading them touches no disk. The memory changes on the event loop after each commit,
    in the order of the commits. A read-only connection reads accounts, keys and answers from the file on the loop; such
    a read takes microseconds. Accounts and keys are cached until this or another process commits something.
    """

    def __init__(
        self, path: Path, descriptor: int, reader: sqlite3.Connection, writer: Writer, index: SessionIndex
    ) -> None:
        """Use `open`."""
        self._descriptor = descriptor
        self._reader = reader
        self._writer = writer
        self._index = index
        self._loop = asyncio.get_running_loop()
        self._touched: dict[str, int] = {}  # activity that the writer does not have yet
        self._flush: asyncio.TimerHandle | None = None
        self._seen = -1  # the PRAGMA data_version of the two caches
        self._keys: dict[str, tuple[Key, Account]] = {}
        self._accounts: dict[str, Account] = {}
        self._closing: asyncio.Task[None] | None = None
        self._log = LogCleaner(path)

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the store, and creates it if it does not exist. Its directory must exist.

        Raises StoreDamaged, StoreTooNew, StoreInUse (one server at a time) and other StoreUnusable.
        """
        descriptor, reader, connection, index = await asyncio.to_thread(_open, path)
        return cls(path, descriptor, reader, Writer(connection), index)

    async def close(self) -> None:
        if self._closing is None:
            self._flush_touched()
            self._closing = asyncio.create_task(self._close(), name="store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._writer.close()
        if self._flush is not None:  # set again if the last activity could not be written
            self._flush.cancel()
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

    async def list_accounts(self) -> Sequence[Account]:
        return accounts.list_accounts(self._reader)

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        return await self._change(partial(accounts.set_account_status, account_id=account_id, status=status))

    async def add_key(self, key: Key) -> None:
        await self._change(partial(accounts.add_key, key=key))

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        return accounts.list_keys(self._reader, account_id)

    async def revoke_key(self, key_id: str, now: int) -> bool:
        return await self._change(partial(accounts.revoke_key, key_id=key_id, now=now))

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        self._forget_if_changed()
        found = self._keys.get(key_hash) or accounts.find_key(self._reader, key_hash)
        if found is not None:  # unknown keys are not cached: anyone can invent them
            self._keys[key_hash] = found
        return found

    # sessions

    async def add_session(self, session: Session, answer: Answer | None, limit: int) -> None:
        stored = None if answer is None else await _packed(answer)

        def work(connection: sqlite3.Connection) -> None:
            sessions.add_session(connection, session, limit)
            if stored is not None:
                _add_first(connection, stored)

        await self._change(work, lambda _: self._index.add(session))

    async def get_session(self, session_id: str) -> Session | None:
        return self._index.get(session_id)

    async def list_sessions(
        self,
        account_id: str,
        *,
        now: int,
        state: State | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Session], int]:
        return self._index.page(account_id, now, state, metadata or {}, limit, offset)

    async def count_sessions(self, account_id: str) -> int:
        return self._index.count(account_id)

    async def all_sessions(self) -> Sequence[Session]:
        return self._index.all()

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        return self._index.of_account(account_id)

    async def count_states(self) -> Mapping[State, int]:
        return self._index.states()

    async def changed_sessions(self) -> Sequence[Session]:
        return self._index.changed()

    async def change_session(self, old: Session, new: Session) -> Session:
        if (old.id, old.account) != (new.id, new.account):
            raise ValueError("a session's id and account cannot change")

        def committed(_: None) -> Session:
            if new.state is State.DELETING:
                self._log.due()
            return self._index.change(new, old.version + 1)

        return await self._change(partial(sessions.change_session, new=new, expected=old.version), committed)

    async def touch_session(self, session_id: str, now: int) -> None:
        if self._index.touch(session_id, now) and self._closing is None:
            self._touched[session_id] = now
            self._flush_later()

    async def remove_session(self, session_id: str) -> None:
        def committed(_: None) -> None:
            self._log.due()
            self._index.remove(session_id)

        await self._change(partial(sessions.remove_session, session_id=session_id), committed)

    # preview tokens

    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        stored = None if answer is None else await _packed(answer)

        def work(connection: sqlite3.Connection) -> None:
            preview_tokens.add_preview_token(connection, token, limit)
            if stored is not None:
                _add_first(connection, stored)

        await self._change(work)

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        return preview_tokens.find_preview_token(self._reader, token_hash)

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        work = partial(preview_tokens.revoke_preview_tokens, session_id=session_id, token_hash=token_hash)
        return await self._change(work)

    async def drop_preview_tokens(self, now: int) -> int:
        return await self._change(partial(preview_tokens.drop_preview_tokens, now=now))

    # images

    async def add_image(self, image: NamedImage) -> None:
        await self._change(partial(images.put_image, image=image))

    async def find_image(self, account_id: str, name: str) -> NamedImage | None:
        return images.find_image(self._reader, account_id, name)

    async def list_images(self, account_id: str) -> Sequence[NamedImage]:
        return images.list_images(self._reader, account_id)

    async def remove_image(self, account_id: str, name: str) -> bool:
        return await self._change(partial(images.remove_image, account_id=account_id, name=name))

    async def used_images(self) -> Set[str]:
        return images.used_images(self._reader)

    # idempotency

    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        stored = answers.find_answer(self._reader, account_id, key)
        if stored is None:
            return None
        if len(stored.body) <= INLINE_BODY:
            return answers.unpack(stored)
        return await asyncio.to_thread(answers.unpack, stored)

    async def add_answer(self, answer: Answer) -> None:
        await self._change(partial(answers.add_answer, stored=await _packed(answer)))

    async def drop_answers(self, before: int) -> int:
        total, dropped = 0, DROP_AT_ONCE
        while dropped == DROP_AT_ONCE:
            dropped = await self._change(partial(answers.drop_answers, before=before, most=DROP_AT_ONCE))
            total += dropped
        return total

    # how changes and caches work

    async def _change[T, R](
        self, work: Callable[[sqlite3.Connection], T], committed: Callable[[T], R] | None = None
    ) -> R:
        """Commits `work`, then calls `committed` on the loop and returns its result.

        A cancelled caller only stops waiting: the change and `committed` still happen.
        """
        waiter: asyncio.Future[R] = self._loop.create_future()

        def settle(outcome: Outcome) -> None:
            if outcome.failure is None:
                value = cast(T, outcome.value)
                result = cast(R, value) if committed is None else committed(value)
                if not waiter.done():
                    waiter.set_result(result)
            elif not waiter.done():
                waiter.set_exception(outcome.failure)

        self._flush_touched()
        self._writer.submit(work, settle)
        return await waiter

    def _flush_later(self) -> None:
        if self._flush is None:
            self._flush = self._loop.call_later(TOUCH_SECONDS, self._flush_touched)

    def _flush_touched(self) -> None:
        """Passes noted activity to the writer, which adds it to its next commit."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self._touched:
            return
        touched, self._touched = self._touched, {}

        def settle(outcome: Outcome) -> None:
            if outcome.failure is not None:
                self._touched = touched | self._touched  # retried with the next commit
                self._flush_later()

        self._writer.submit(partial(sessions.touch_sessions, touched=touched), settle)

    def _forget_if_changed(self) -> None:
        seen = self._reader.execute("PRAGMA data_version").fetchone()[0]
        if seen != self._seen:
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


def _add_first(connection: sqlite3.Connection, stored: answers.PackedAnswer) -> None:
    if not answers.add_answer(connection, stored):
        raise IdempotencyInProgress("Another request with this key just finished. Retry to get its response.")


async def _packed(answer: Answer) -> answers.PackedAnswer:
    if len(answer.body) <= INLINE_BODY:
        return answers.pack(answer)
    return await asyncio.to_thread(answers.pack, answer)
