"""Random sequences of calls give the same results on SQLite and the fake, also after restarts."""

from collections.abc import Coroutine, Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from buntime.account import AccountStatus
from buntime.ports import Store
from buntime.session import Session, State
from tests.contracts.examples import NOW, account, answer, key, session, token
from tests.contracts.twins import OnPostgres, Twins

ACCOUNTS = st.sampled_from(["acc_a", "acc_b"])
SESSIONS = st.sampled_from(["ses_1", "ses_2", "ses_3", "ses_4"])
TOKENS = st.sampled_from("uvw")
KEYS = st.sampled_from(["key_1", "key_2", "key_3"])
NAMES = st.sampled_from([None, "a", "b"])
TIMES = st.integers(0, 5)
METADATA = st.dictionaries(st.sampled_from("xy"), st.sampled_from(["1", 1, True, None, "true"]))


class SameAsTheFake(Twins):
    @rule(name=ACCOUNTS, created_at=TIMES)
    def add_account(self, name: str, created_at: int) -> None:
        new = account(name, created_at)
        self.same(self.real.add_account(new), self.fake.add_account(new))

    @rule(name=ACCOUNTS, status=st.sampled_from(AccountStatus))
    def set_account_status(self, name: str, status: AccountStatus) -> None:
        self.same(self.real.set_account_status(name, status), self.fake.set_account_status(name, status))

    @rule(
        name=KEYS, owner=ACCOUNTS, at=TIMES, ends=st.none() | TIMES, keyed=st.booleans(),
        limit=st.none() | st.integers(0, 2), maker=st.sampled_from([None, "key_1"]),
    )  # fmt: skip
    def add_key(
        self, name: str, owner: str, at: int, ends: int | None, keyed: bool, limit: int | None, maker: str | None
    ) -> None:
        new = replace(key(name, owner, at), expires_at=ends, maker=maker)
        kept = answer("k", owner, name.encode(), at) if keyed else None
        self.same(self.real.add_key(new, kept, limit), self.fake.add_key(new, kept, limit))

    @rule(name=KEYS, now=TIMES)
    def revoke_key(self, name: str, now: int) -> None:
        self.same(self.real.revoke_key(name, now), self.fake.revoke_key(name, now))

    @rule(name=SESSIONS, owner=ACCOUNTS, at=TIMES, called=NAMES, limit=st.integers(0, 3), keyed=st.booleans())
    def add_session(self, name: str, owner: str, at: int, called: str | None, limit: int, keyed: bool) -> None:
        new = session(name, owner, NOW + at, NOW + 5 + at, called=called)
        # where the id and the key are both taken, either may be told
        kept = answer("k", owner, name.encode(), at) if keyed and name not in self.fake.sessions else None
        self.same(self.real.add_session(new, kept, limit), self.fake.add_session(new, kept, limit))

    @rule(name=SESSIONS, state=st.sampled_from(State), metadata=METADATA, at=TIMES, called=NAMES, stale=st.booleans())
    def change_session(
        self, name: str, state: State, metadata: dict[str, object], at: int, called: str | None, stale: bool
    ) -> None:
        old = self.fake.sessions.get(name, session(name))
        new = replace(old, state=state, metadata=metadata, expires_at=NOW + 5 + at, name=called)
        old = replace(old, version=old.version - 1) if stale else old
        self.same(self.real.change_session(old, new), self.fake.change_session(old, new))

    @rule(name=SESSIONS, at=TIMES)
    def touch_session(self, name: str, at: int) -> None:
        self.same(self.real.touch_session(name, NOW + at), self.fake.touch_session(name, NOW + at))

    @rule(name=SESSIONS)
    def remove_session(self, name: str) -> None:
        self.same(self.real.remove_session(name), self.fake.remove_session(name))

    @rule(name=TOKENS, of=SESSIONS, at=TIMES, ttl=st.integers(1, 3), limit=st.integers(1, 2), keyed=st.booleans())
    def add_preview_token(self, name: str, of: str, at: int, ttl: int, limit: int, keyed: bool) -> None:
        new, kept = token(name, of, None, at, ttl), answer("k", "acc_a", name.encode(), at) if keyed else None
        self.same(self.real.add_preview_token(new, kept, limit), self.fake.add_preview_token(new, kept, limit))

    @rule(of=SESSIONS, name=st.none() | TOKENS)
    def revoke_preview_tokens(self, of: str, name: str | None) -> None:
        hashed = None if name is None else token(name).hash
        self.same(self.real.revoke_preview_tokens(of, hashed), self.fake.revoke_preview_tokens(of, hashed))

    @rule(now=st.integers(0, 8))
    def drop_preview_tokens(self, now: int) -> None:
        self.same(self.real.drop_preview_tokens(now), self.fake.drop_preview_tokens(now))

    @rule(owner=ACCOUNTS, body=st.binary(max_size=3), created_at=TIMES, times=st.sampled_from([1, 2000]))
    def add_answer(self, owner: str, body: bytes, created_at: int, times: int) -> None:
        new = answer("k", owner, body * times, created_at)
        self.same(self.real.add_answer(new), self.fake.add_answer(new))

    @rule(owner=ACCOUNTS, body=st.binary(max_size=3), times=st.sampled_from([1, 1000]))
    def change_answer(self, owner: str, body: bytes, times: int) -> None:
        new = answer("k", owner, body * times)
        self.same(self.real.change_answer(new), self.fake.change_answer(new))

    @rule(before=TIMES)
    def drop_answers(self, before: int) -> None:
        self.same(self.real.drop_answers(before), self.fake.drop_answers(before))

    @rule(
        owner=ACCOUNTS,
        at=st.integers(4, 11),
        state=st.sampled_from([None, *State]),
        wanted=st.just({}) | METADATA,
        called=NAMES,
        offset=st.integers(0, 2),
    )
    def list_sessions(
        self,
        owner: str,
        at: int,
        state: State | None,
        wanted: dict[str, object],
        called: str | None,
        offset: int,
    ) -> None:
        texts = {name: str(value) for name, value in wanted.items()}

        def page(store: Store) -> Coroutine[object, object, object]:
            return store.list_sessions(
                owner, now=NOW + at, state=state, name=called, metadata=texts, limit=2, offset=offset
            )

        self.same(page(self.real), page(self.fake))

    @rule()
    def changed_sessions(self) -> None:
        assert self.run(by_id(self.real.changed_sessions())) == self.run(by_id(self.fake.changed_sessions()))

    @invariant()
    def say_the_same(self) -> None:
        assert self.run(everything(self.real)) == self.run(everything(self.fake))


async def by_id(sessions: Coroutine[object, object, Sequence[Session]]) -> list[Session]:
    return sorted(await sessions, key=lambda one: one.id)


async def everything(store: Store) -> object:
    return (
        await store.list_accounts(),
        await store.list_keys(),
        [await store.find_key(key(f"key_{n}").hash) for n in (1, 2, 3)],
        await by_id(store.all_sessions()),
        [await by_id(store.account_sessions(owner)) for owner in ("acc_a", "acc_b")],
        [await store.count_sessions(owner) for owner in ("acc_a", "acc_b")],
        [await store.named_session(owner, called) for owner in ("acc_a", "acc_b") for called in ("a", "b")],
        [await store.find_answer(owner, "k") for owner in ("acc_a", "acc_b")],
        [await store.find_preview_token(token(name).hash) for name in "uvw"],
    )


TestSameAsTheFake = SameAsTheFake.TestCase
TestSameAsTheFake.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


class SameAsTheFakeOnPostgres(OnPostgres, SameAsTheFake):
    pass


ON_POSTGRES = SameAsTheFakeOnPostgres.TestCase
ON_POSTGRES.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestSameAsTheFakeOnPostgres = pytest.mark.postgres(pytest.mark.usefixtures("postgres_url")(ON_POSTGRES))
