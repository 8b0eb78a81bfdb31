"""Random sequences of calls about snapshots, layers and images give the same results on SQLite and the fake."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from buntime.image import NamedImage
from buntime.ports import Store
from buntime.session import SavedVolume, Session
from tests.contracts.examples import NOW, answer, layer, made_image, named, session, snapshot
from tests.contracts.twins import OnPostgres, Twins

ACCOUNTS = st.sampled_from(["acc_a", "acc_b"])
SESSIONS = st.sampled_from(["ses_1", "ses_2"])
SNAPSHOTS = st.sampled_from(["snp_1", "snp_2", "snp_3"])
LAYERS = st.sampled_from(["lay_1", "lay_2", "lay_3"])
IMAGES = st.sampled_from(["img-0", "root-1", "img_1", "img_2"])
MADE = st.sampled_from(["img_1", "img_2"])
NAMES = st.sampled_from(["x", "y"])
TIMES = st.integers(0, 3)
LIMITS = st.sampled_from([1, 2, 9])


class SameAsTheFake(Twins):
    @initialize()
    def have_sessions(self) -> None:
        for name in ("ses_1", "ses_2"):
            self.add_session(name, "acc_a", "img-0", "default")

    @rule(name=SESSIONS, owner=ACCOUNTS, image=IMAGES, by=NAMES | st.just("default"))
    def add_session(self, name: str, owner: str, image: str, by: str) -> None:
        by = "default" if image == "img-0" else by
        new = replace(session(name, owner), image=image, image_name=by)
        self.same(self.real.add_session(new, None, 9), self.fake.add_session(new, None, 9))

    @rule(name=SESSIONS)
    def remove_session(self, name: str) -> None:
        self.same(self.real.remove_session(name), self.fake.remove_session(name))

    @rule(of=SESSIONS, name=SNAPSHOTS, on=LAYERS, image=IMAGES, at=TIMES, keyed=st.booleans(), stale=st.booleans())
    def restore_session(self, of: str, name: str, on: str, image: str, at: int, keyed: bool, stale: bool) -> None:
        old = self.fake.sessions.get(of, session(of))
        new = replace(old, image=image, volume="vol_new")
        old = replace(old, version=old.version + stale)
        before = snapshot(name, old.account, of, on, old.image, at, is_automatic=True)
        below = layer(on, old.account, old.image, at)
        kept = answer("k", old.account, name.encode()) if keyed else None
        self.same(
            self.real.restore_session(old, new, before, below, kept),
            self.fake.restore_session(old, new, before, below, kept),
        )

    @rule(name=SNAPSHOTS, of=SESSIONS, on=LAYERS, new=st.booleans(), at=TIMES, ttl=st.none() | TIMES, limit=LIMITS)
    def add_snapshot(self, name: str, of: str, on: str, new: bool, at: int, ttl: int | None, limit: int) -> None:
        source = self.fake.sessions.get(of, session(of))
        end = None if ttl is None else at + ttl
        added = snapshot(name, source.account, of, on, source.image, at, end, label=name[-1])
        below = layer(on, source.account, source.image, at) if new else None
        kept = answer(name, source.account, on.encode()) if ttl else None
        self.same(self.real.add_snapshot(added, below, kept, limit), self.fake.add_snapshot(added, below, kept, limit))

    @rule(name=SNAPSHOTS)
    def remove_snapshot(self, name: str) -> None:
        self.same(self.real.remove_snapshot(name), self.fake.remove_snapshot(name))

    @rule(now=TIMES)
    def drop_snapshots(self, now: int) -> None:
        self.same(self.real.drop_snapshots(now), self.fake.drop_snapshots(now))

    @rule(owner=ACCOUNTS)
    def drop_kept_of(self, owner: str) -> None:
        self.same(self.real.drop_kept_of(owner), self.fake.drop_kept_of(owner))

    @rule(name=LAYERS, owner=ACCOUNTS, image=IMAGES, at=TIMES, fork=st.sampled_from(["", "k1", "k2"]))
    def add_layer(self, name: str, owner: str, image: str, at: int, fork: str) -> None:
        new = layer(name, owner, image, at, fork)
        self.same(self.real.add_layer(new), self.fake.add_layer(new))

    @rule(name=LAYERS, at=TIMES)
    def save_layer(self, name: str, at: int) -> None:
        saved = SavedVolume(f"{name}/1", 1, at)
        self.same(self.real.save_layer(name, saved), self.fake.save_layer(name, saved))

    @rule(name=LAYERS)
    def end_fork(self, name: str) -> None:
        self.same(self.real.end_fork(name), self.fake.end_fork(name))

    @rule(before=TIMES)
    def condemn_layers(self, before: int) -> None:
        self.same(self.real.condemn_layers(before), self.fake.condemn_layers(before))

    @rule(name=LAYERS)
    def remove_layer(self, name: str) -> None:
        self.same(self.real.remove_layer(name), self.fake.remove_layer(name))

    @rule(made=MADE, base=IMAGES, on=LAYERS, new=st.booleans(), name=NAMES, owner=ACCOUNTS, limit=LIMITS)
    def add_made_image(self, made: str, base: str, on: str, new: bool, name: str, owner: str, limit: int) -> None:
        image, by = made_image(made, base, on), named(made, name, owner)
        below = layer(on, owner, base) if new else None
        self.same(
            self.real.add_made_image(image, by, below, None, limit),
            self.fake.add_made_image(image, by, below, None, limit),
        )

    @rule()
    def drop_made_images(self) -> None:
        self.same(self.real.drop_made_images(), self.fake.drop_made_images())

    @rule(name=NAMES, image=st.just("root-1"))
    def add_image(self, name: str, image: str) -> None:
        new = NamedImage(name, image, 1, NOW)
        self.same(self.real.add_image(new), self.fake.add_image(new))

    @rule(name=NAMES, owner=ACCOUNTS | st.just(""))
    def remove_image(self, name: str, owner: str) -> None:
        self.same(self.real.remove_image(owner, name), self.fake.remove_image(owner, name))

    @rule(owner=ACCOUNTS, now=TIMES, of=st.none() | SESSIONS, name=st.none() | st.sampled_from("12"), offset=TIMES)
    def list_snapshots(self, owner: str, now: int, of: str | None, name: str | None, offset: int) -> None:
        self.same(
            self.real.list_snapshots(owner, now=now, session=of, name=name, limit=2, offset=offset),
            self.fake.list_snapshots(owner, now=now, session=of, name=name, limit=2, offset=offset),
        )

    @invariant()
    def say_the_same(self) -> None:
        assert self.run(everything(self.real)) == self.run(everything(self.fake))

    @invariant()
    def lose_nothing_that_is_referred_to(self) -> None:
        keys = {one.id for one in self.fake.layers.values() if not one.is_condemned}
        assert {one.layer for one in self.fake.snapshots.values()} <= keys
        assert {one.layer for one in self.fake.made_images.values()} <= keys
        assert {image.id for image in self.fake.images.values() if image.account} <= set(self.fake.made_images)


async def everything(store: Store) -> object:
    sessions: list[Session] = sorted(await store.all_sessions(), key=lambda one: one.id)
    return (
        sessions,
        [await store.get_snapshot(f"snp_{n}") for n in (1, 2, 3)],
        [await store.count_snapshots(owner, 2) for owner in ("acc_a", "acc_b")],
        await store.all_layers(),
        [await store.counted_layers(owner) for owner in ("acc_a", "acc_b")],
        [await store.counted_bytes(owner) for owner in ("acc_a", "acc_b")],
        [await store.find_fork_layer(owner, key) for owner in ("acc_a", "acc_b") for key in ("", "k1", "k2")],
        await store.all_made_images(),
        [await store.list_images(owner) for owner in ("acc_a", "acc_b")],
        await store.used_images(),
        [await store.find_answer("acc_a", key) for key in ("k", "snp_1", "snp_2", "snp_3")],
    )


TestSameAsTheFake = SameAsTheFake.TestCase
TestSameAsTheFake.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)


class SameAsTheFakeOnPostgres(OnPostgres, SameAsTheFake):
    pass


ON_POSTGRES = SameAsTheFakeOnPostgres.TestCase
ON_POSTGRES.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
TestSameAsTheFakeOnPostgres = pytest.mark.postgres(pytest.mark.usefixtures("postgres_url")(ON_POSTGRES))
