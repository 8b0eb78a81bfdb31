"""Implements `ports.Store` with PostgreSQL."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import batched
from typing import Self

import structlog
from psycopg.errors import DatabaseError, IntegrityError, UniqueViolation
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from buntime.account import Account, AccountStatus, Key
from buntime.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    ImageNotFound,
    NameTaken,
    NotOwner,
    OutcomeUnknown,
    ResourceLimitExceeded,
    SessionLimitExceeded,
    SessionNotFound,
    StaleSession,
    TooManyTokens,
)
from buntime.event import AccountEvent
from buntime.fleet.members import Membership
from buntime.image import DEFAULT_IMAGE
from buntime.ports import Answer, PreviewToken
from buntime.session import Session, State
from buntime.snapshot import Layer, Snapshot
from buntime.stores.postgres.committing import DROP_AT_ONCE, JUST_ENDED, answer_values
from buntime.stores.postgres.connecting import Place, connect, pool_of, probe
from buntime.stores.postgres.counted import CountedOverHosts
from buntime.stores.postgres.kept import put_layer, put_snapshot, require_kept
from buntime.stores.postgres.migrations import migrate
from buntime.stores.postgres.noted import follow
from buntime.stores.postgres.transactions import ROWS_AT_ONCE, Pool, Transaction, Transactions, Work
from buntime.stores.rows.accounts import account_of, account_row, key_of, key_row
from buntime.stores.rows.answers import PackedAnswer, answer_of, pack_aside, unpack_aside
from buntime.stores.rows.sessions import has_metadata, require_same, session_of, session_row
from buntime.stores.rows.usage import open_row
from buntime.stores.unusable import StoreUnusable
from buntime.usage import Reading, first_window

SESSIONS_AT_ONCE = 5_000  # that one statement reads of all that this host has

log = structlog.get_logger()


class PostgresStore(CountedOverHosts):
    """Implements `ports.Store`. Reads ask the database, but for the sessions of this host (`own.py`) and for keys that
    were shown in the last second (`known_keys.py`).

    A change is one transaction (READ COMMITTED) that locks what its checks rely on: `queries/changes.sql`.
    """

    def __init__(
        self, place: Place, pool: Pool, host: str, membership: Callable[[], Membership], *, is_pooled: bool
    ) -> None:
        """Use `open`."""
        super().__init__(place, Transactions(pool, is_pooled=is_pooled), host, membership)
        self._pool = pool
        self.is_pooled = is_pooled  # a pooler shares connections among transactions: statements cannot be prepared
        self._seen: dict[str, int] = {}  # session → version that `_changed_rows` returned, and may find again
        self._horizon = (0, "")  # transactions before this one of that server are known

    @classmethod
    async def open(cls, place: Place, host: str, membership: Callable[[], Membership]) -> Self:
        """Opens the store, and makes its tables if there are none. Raises StoreTooNew and other StoreUnusable.

        `host`: the id of this host. `membership`: as which member it stores anything. Raises Fenced while it is none.
        """
        async with await connect(place) as connection:
            await migrate(connection, place.shown)
            is_pooled = await probe(connection)
        pool = pool_of(place, is_pooled=is_pooled)
        try:
            await pool.open(wait=True)
        except PoolTimeout:
            await pool.close()
            raise StoreUnusable(f"The store {place.shown} takes too few connections.") from None
        return cls(place, pool, host, membership, is_pooled=is_pooled)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._end_changes()
        await self._listening.close()
        await self._pool.close()

    # accounts and keys

    async def add_account(self, account: Account) -> None:
        try:
            await self._run("add_account", **account_row(account))
        except IntegrityError as refused:
            raise ValueError(f"account id {account.id} is taken") from refused

    async def get_account(self, account_id: str) -> Account | None:
        row = await self._transactions.first("get_account", id=account_id)
        return None if row is None else account_of(row)

    async def inactive_accounts(self) -> Sequence[Account]:
        return [account_of(row) for row in await self._transactions.all("inactive_accounts")]

    async def list_accounts(self) -> Sequence[Account]:
        return [account_of(row) for row in await self._transactions.all("list_accounts")]

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        with self._changing_keys():
            return await self._run("set_account_status", id=account_id, status=status.value) == 1

    async def add_key(
        self,
        key: Key,
        answer: Answer | None = None,
        limit: int | None = None,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        async def work(transaction: Transaction) -> None:
            if limit is not None:
                await transaction.send("lock_account", account=key.account)
                asked = {"account": key.account, "now": key.created_at}
                if (await transaction.only("count_valid_keys", **asked))["keys"] >= limit:
                    raise ResourceLimitExceeded("keys", limit, "account", "")
                await transaction.send("forget_keys", limit=limit, **asked)
            try:
                await transaction.run("add_key", **key_row(key))
            except IntegrityError as refused:
                raise ValueError(f"key {key.id}: id or hash is taken, or no account {key.account}") from refused

        await self._change_and_answer(answer, work, events)

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        if account_id is None:
            return [key_of(row) for row in await self._transactions.all("list_keys")]
        return [key_of(row) for row in await self._transactions.all("list_keys_of_account", account=account_id)]

    async def revoke_key(self, key_id: str, now: int, events: Sequence[AccountEvent] = ()) -> bool:
        async def work(transaction: Transaction) -> bool:
            return await transaction.run("revoke_key", id=key_id, now=now) == 1

        with self._changing_keys():
            return await self._change_if_done(work, events)

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        if (known := self._keys.get(key_hash)) is not None:
            return known
        learn = self._keys.asking()
        row = await self._transactions.first("find_key", hash=key_hash)
        if row is None:
            return None
        found = key_of(row), account_of(row | {"id": row["account"], "created_at": row["account_created_at"]})
        learn(key_hash, found)
        return found

    @contextmanager
    def _changing_keys(self) -> Iterator[None]:
        self._keys.forget()
        try:
            yield
        finally:
            self._keys.forget()

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
        stored = None if answer is None else await pack_aside(answer)
        owned = replace(session, host=self.host)
        opened = () if reading is None else (open_row(first_window(session, reading)),)
        values = {
            **session_row(owned),
            **{f"answer_{each.name}": stored and getattr(stored, each.name) for each in fields(PackedAnswer)},
            **{"limit": limit, "is_default": session.image_name == DEFAULT_IMAGE, "opened": json.dumps(opened)},
        }
        await self._settle_activity(session.id)
        while True:
            try:
                added = self._change_at_once("add_session", values, events)
                return await self._change_own(session.id, added, lambda _: owned)
            except DatabaseError as refused:
                refusal = _refusal_of(session, limit, refused)
                if not isinstance(refusal, _NameClash):
                    raise refusal from refused
                await self._refuse_name(session)  # another change has just given the name to a session

    async def get_session(self, session_id: str) -> Session | None:
        if (known := self._own.get(session_id)) is not None:
            return self._with_activity(known)
        noted = self._activity(session_id)
        with self._own.reading() as read:
            row = await self._transactions.first("get_session", id=session_id)
            found = None if row is None else self._as_seen(row, {session_id: noted})
            if found is not None:
                self._own.learn(read, [found])
            return found

    async def named_session(self, account_id: str, name: str) -> Session | None:
        rows = await self._sessions("named_session", account=account_id, name=name)
        return rows[0] if rows else None

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
        read, noted = self._transactions.filtered, self._touching | self._touched
        wanted = {"account": account_id, "now": now, "state": state and state.value, "name": name}
        if metadata:
            every = await self._seen_rows(await read("list_sessions", limit=None, offset=0, **wanted), noted)
            found = [session for session in every if has_metadata(session, metadata)]
            return found[offset : offset + limit], len(found)
        (counted,) = await read("count_listed_sessions", **wanted)
        page = await read("list_sessions", limit=limit, offset=offset, **wanted)
        return await self._seen_rows(page, noted), counted["total"]

    async def count_sessions(self, account_id: str) -> int:
        (row,) = await self._transactions.all("count_sessions", account=account_id)
        return int(row["sessions"])

    async def all_sessions(self) -> Sequence[Session]:
        found, after = list[Session](), ""
        while True:
            noted = self._touching | self._touched
            with self._own.reading() as read:
                rows = await self._transactions.all("all_sessions", me=self.host, after=after, most=SESSIONS_AT_ONCE)
                page = await self._seen_rows(rows, noted)
                self._own.learn(read, page)
            found += page
            if len(page) < SESSIONS_AT_ONCE:
                return found
            after = page[-1].id

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        return await self._sessions("account_sessions", account=account_id)

    async def account_sandboxes(self, account_id: str) -> Sequence[str]:
        return [row["sandbox"] for row in await self._transactions.all("account_sandboxes", account=account_id)]

    async def count_states(self) -> Mapping[State, int]:
        rows = await self._transactions.all("count_states", me=self.host)
        counts = {row["state"]: int(row["sessions"]) for row in rows}
        return {state: counts.get(state.value, 0) for state in State}

    async def changed_sessions(self) -> Sequence[Session]:
        changed = self._own.take_changed()
        try:
            if changed is None:
                return await self._changed_rows()
            found = list[Session]()
            for place, session_id in enumerate(sorted(changed), 1):
                session = await self.get_session(session_id)
                if session is not None and session.host == self.host:
                    found.append(session)
                if not place % ROWS_AT_ONCE:
                    await asyncio.sleep(0)
            return found
        except BaseException:
            self._own.put_back(changed)
            raise

    async def _changed_rows(self) -> Sequence[Session]:
        """Those of this host that anybody has changed since the last call, by their rows."""
        noted = self._touching | self._touched
        since, known = self._horizon
        rows = await self._transactions.all("changed_sessions", since=str(since), me=self.host)
        server = rows[0]["server"]
        if since and (server != known or rows[0]["horizon"] < since):  # a crash restart keeps the time of the start
            self._horizon, self._seen = (0, ""), {}
            return await self._changed_rows()
        found = [row for row in rows if row["id"] is not None]
        new = await self._seen_rows([row for row in found if self._seen.get(row["id"]) != row["version"]], noted)
        self._horizon = rows[0]["horizon"], server
        self._seen = {row["id"]: row["version"] for row in found if row["changed_at"] >= rows[0]["horizon"]}
        return new

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

        async def work(transaction: Transaction) -> Session:
            return await _change(transaction, self.host, old, new, reading)

        return await self._store_change(new, work, answer, events)

    async def release(self, session: Session) -> bool:
        """Implements `lifecycle.draining.Releases`."""
        change = self._run("release_session", id=session.id, host=session.host, epoch=session.epoch)
        return await self._change_own(session.id, change, lambda _: None) == 1

    async def touch_session(self, session_id: str, now: int) -> None:
        if self._closing is None:
            self._note_activity(session_id, now)

    async def remove_session(self, session_id: str) -> None:
        async def work(transaction: Transaction) -> None:
            if await transaction.run("remove_session", id=session_id, me=self.host):
                await transaction.send("end_open", session=session_id)
            elif await transaction.first("owner_of", id=session_id):
                raise NotOwner(session_id)

        await self._change_own(session_id, self._change(work), lambda _: None)

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

        async def work(transaction: Transaction) -> Session:
            await transaction.send("keep_references")
            if new.image != old.image:
                await require_kept(transaction, new.image, new.image_name)
            changed = await _change(transaction, self.host, old, new, reading)
            await transaction.send("drop_automatic", session=new.id)
            await put_layer(transaction, layer)  # the session had the layer's image until now
            await put_snapshot(transaction, before)
            return changed

        return await self._store_change(new, work, answer, events)

    async def _store_change(
        self, new: Session, work: Work[Session], answer: Answer | None, events: Sequence[AccountEvent]
    ) -> Session:
        """The session as the work has stored it, with the newest activity. Raises NameTaken."""
        while True:
            try:
                change = self._change_and_answer(answer, work, events)
                return self._with_activity(await self._change_own(new.id, change, lambda changed: changed))
            except _NameClash:
                await self._refuse_name(new)

    # preview tokens

    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        async def work(transaction: Transaction) -> None:
            session = await transaction.first("lock_session", id=token.session)
            if session is None or session["state"] == State.DELETING:
                raise SessionNotFound(token.session)
            valid = await transaction.only("count_preview_tokens", session=token.session, now=token.created_at)
            if valid["tokens"] >= limit:
                raise TooManyTokens(limit)
            values = {"hash": token.hash, "session": token.session, "port": token.port}
            ends = {"created_at": token.created_at, "expires_at": token.expires_at}
            try:
                await transaction.run("add_preview_token", **values, **ends)
            except IntegrityError as refused:
                raise ValueError("the token's hash is taken") from refused

        await self._change_and_answer(answer, work)

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        row = await self._transactions.first("find_preview_token", hash=token_hash)
        return None if row is None else PreviewToken(**row)

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        return await self._run("revoke_preview_tokens", session=session_id, hash=token_hash)

    async def drop_preview_tokens(self, now: int) -> int:
        return await self._run("drop_preview_tokens", now=now)

    # idempotency

    async def begin_key(self, account_id: str, key: str, fingerprint: str, now: int, *, repeatable: bool) -> None:
        values = {"account": account_id, "key": key, "fingerprint": fingerprint, "repeatable": repeatable, "now": now}
        try:
            await self._change_at_once("begin_key", values)
        except DatabaseError as refused:
            raise _refusal_of_key(refused) from refused

    async def end_key(self, account_id: str, key: str) -> None:
        me = self._me()
        await self._run("end_key", account=account_id, key=key, host=me.host, incarnation=me.incarnation)

    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        row = await self._transactions.first("find_answer", account=account_id, key=key)
        return None if row is None else await unpack_aside(answer_of(row))

    async def add_answer(self, answer: Answer) -> None:
        await self._change_at_once("answer_request", answer_values(await pack_aside(answer)))

    async def change_answer(self, answer: Answer) -> None:
        await self._run("change_answer", **answer_values(await pack_aside(answer)))

    async def drop_answers(self, before: int) -> int:
        await self._run("drop_keys", before=before)
        return await self._drop(lambda: self._run("drop_answers", before=before, most=DROP_AT_ONCE))

    async def _sessions(self, name: str, /, **values: object) -> list[Session]:
        noted = self._touching | self._touched
        return await self._seen_rows(await self._transactions.all(name, **values), noted)

    async def _seen_rows(self, rows: Sequence[DictRow], noted: Mapping[str, int]) -> list[Session]:
        """A host may have tens of thousands: other tasks go on meanwhile."""
        found = list[Session]()
        for some in batched(rows, ROWS_AT_ONCE, strict=False):
            if found:
                await asyncio.sleep(0)
            found += [self._as_seen(row, noted) for row in some]
        return found

    def _as_seen(self, row: DictRow, noted: Mapping[str, int]) -> Session:
        """With activity that was not written when the row was asked for, or is not yet."""
        return self._with_activity(session_of(row), noted.get(row["id"], 0))

    def _with_activity(self, session: Session, noted: int = 0) -> Session:
        last_active = max(session.last_active, noted, self._activity(session.id))
        return session if last_active == session.last_active else replace(session, last_active=last_active)

    async def _refuse_name(self, session: Session) -> None:
        """Raises NameTaken if another session has the name; it may have given it up meanwhile."""
        assert session.name is not None
        holder = await self.named_session(session.account, session.name)
        if holder is not None and holder.id != session.id:
            raise NameTaken(session.name, holder.id)


class _NameClash(Exception):
    """The index has refused the name."""


def _name_or_id(session: Session, refused: UniqueViolation) -> Exception:
    if refused.diag.constraint_name == "sessions_by_name":
        return _NameClash()
    return ValueError(f"session id {session.id} is taken")


def _refusal_of(session: Session, limit: int, refused: DatabaseError) -> Exception:
    """Why the database has not added the session: see `require_place` of the schema."""
    detail = refused.diag.message_detail or ""
    match refused.sqlstate:
        case "BF002":
            return NameTaken(str(session.name), detail)
        case "BF003":
            return SessionLimitExceeded("", limit, int(detail))
        case "BF004":
            return ImageNotFound(session.image_name)
    if not isinstance(refused, UniqueViolation):
        return refused
    if refused.diag.constraint_name == "answers_pkey":
        return IdempotencyInProgress(JUST_ENDED)
    return _name_or_id(session, refused)


def _refusal_of_key(refused: DatabaseError) -> Exception:
    """Why the database has not begun the request: see `begin_key` of the schema."""
    match refused.sqlstate:
        case "BF005":
            return IdempotencyInProgress(JUST_ENDED)
        case "BF006":
            return IdempotencyInProgress("The first request with this Idempotency-Key is still running.")
        case "BF007":
            return IdempotencyKeyReused("This Idempotency-Key was used for another request.")
        case "BF008":
            return OutcomeUnknown()
    return refused


async def _change(transaction: Transaction, me: str, old: Session, new: Session, reading: Reading | None) -> Session:
    """Raises NotOwner, StaleSession, and _NameClash."""
    values = session_row(new) | {"epoch": old.epoch}
    try:
        row = await transaction.first("change_session", expected=old.version, me=me, **values)
    except UniqueViolation as refused:
        raise _name_or_id(new, refused) from refused
    if row is None:
        owner = await transaction.first("owner_of", id=new.id)
        if owner is not None and (owner["host"], owner["epoch"]) != (me, old.epoch):
            raise NotOwner(new.id)
        raise StaleSession(f"{new.id} no longer has version {old.version}")
    await follow(transaction, old, new, reading)
    owned = replace(new, host=me, epoch=old.epoch)
    return replace(owned, version=old.version + 1, last_active=row["last_active"])
