"""The fake's snapshots, forks, restores and images, as users' tests use them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from buntime_sdk import (
    BuntimeError,
    ContextLost,
    DiskFull,
    FileNotFound,
    Forbidden,
    ImageNotFound,
    InvalidRequest,
    ProcessNotFound,
    Session,
    SessionBusy,
    SessionLimitExceeded,
    SessionNotFound,
    SleepPolicy,
    SnapshotNotFound,
)
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime, FakeResult, FakeRun

MB = 1 << 20
NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)


def written(fake: FakeBuntime, **settings: object) -> Session:
    """A session with a file."""
    session = fake.sessions.create(**settings)  # type: ignore[arg-type]
    session.files.write("a.txt", "one")
    return session


def refused_field(call: Callable[[], object]) -> object:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return refused.value.details["field"]


def test_a_snapshot_keeps_files_as_they_were_and_outlives_its_session() -> None:
    fake = FakeBuntime()
    session = written(fake)
    made = session.snapshot(name="first", metadata={"a": 1})
    assert (made.session_id, made.name, made.metadata, made.image) == (session.id, "first", {"a": 1}, "default")
    assert (made.size_bytes, made.expires_at) == (3, None)
    session.files.write("a.txt", "two")
    session.delete()
    assert fake.snapshots.get(made.snapshot_id) == made
    with fake.sessions.create(snapshot_id=made.snapshot_id) as other:
        assert other.files.read("a.txt") == "one"
        other.files.write("a.txt", "three")
    assert fake.sessions.create(snapshot_id=made.snapshot_id).files.read("a.txt") == "one"


def test_a_snapshot_of_a_sleeping_session_does_not_wake_it() -> None:
    session = written(FakeBuntime())
    session.sleep("deep-sleep")
    session.snapshot()
    assert session.refresh().state == "deep-sleep"


def test_snapshots_are_listed_newest_first_by_session_and_name() -> None:
    fake = FakeBuntime()
    one, other = written(fake), written(fake)
    kept = [session.snapshot(name=name).snapshot_id for session, name in ((one, "a"), (other, "a"), (one, "b"))]
    assert [each.snapshot_id for each in fake.snapshots.list(page_size=2)] == kept[::-1]
    assert [each.snapshot_id for each in fake.snapshots.list(session_id=one.id)] == [kept[2], kept[0]]
    assert [each.snapshot_id for each in fake.snapshots.list(session_id=one.id, name="a")] == [kept[0]]
    fake.snapshots.delete(kept[0])
    assert fake.snapshots.list().page()[1] == 2


def test_an_unknown_deleted_or_expired_snapshot_is_not_found() -> None:
    now = NOW
    fake = FakeBuntime(clock=lambda: now)
    session = written(fake)
    expiring, deleted = session.snapshot(ttl=60), session.snapshot()
    assert expiring.expires_at == NOW + timedelta(seconds=60)
    fake.snapshots.delete(deleted.snapshot_id)
    now += timedelta(seconds=60)
    for snapshot_id in (expiring.snapshot_id, deleted.snapshot_id, "snp_000000000000000000"):
        calls: tuple[Callable[[], object], ...] = (
            lambda of=snapshot_id: fake.snapshots.get(of),  # type: ignore[misc]
            lambda of=snapshot_id: fake.snapshots.delete(of),  # type: ignore[misc]
            lambda of=snapshot_id: fake.sessions.create(snapshot_id=of),  # type: ignore[misc]
            lambda of=snapshot_id: session.restore(of),  # type: ignore[misc]
            lambda of=snapshot_id: fake.images.create("base", snapshot_id=of),  # type: ignore[misc]
        )
        for call in calls:
            with pytest.raises(SnapshotNotFound) as missing:
                call()
            assert missing.value.details == {"snapshotId": snapshot_id}
    assert list(fake.snapshots.list()) == []


def test_wrong_arguments_are_refused_by_their_names() -> None:
    fake = FakeBuntime()
    session = written(fake)
    made = session.snapshot().snapshot_id
    assert refused_field(lambda: session.snapshot(ttl=59)) == "ttl"
    assert refused_field(lambda: session.snapshot(name="")) == "name"
    assert refused_field(lambda: fake.sessions.create(image="default", snapshot_id=made)) == "snapshotId"
    assert refused_field(lambda: session.fork_many(0)) == "count"
    assert refused_field(lambda: session.fork_many(101)) == "count"
    assert refused_field(lambda: fake.images.create("default", session_id=session.id)) == "name"
    assert refused_field(lambda: fake.images.create("a", session_id=session.id, snapshot_id=made)) == "sessionId"
    assert refused_field(lambda: fake.images.create("a")) == "sessionId"
    requests = len(fake.requests)
    assert refused_field(lambda: session.restore("")) == "snapshot_id"
    assert refused_field(lambda: fake.snapshots.get("")) == "snapshot_id"
    assert len(fake.requests) == requests


def test_a_fork_inherits_settings_but_not_ttl_and_metadata() -> None:
    fake = FakeBuntime()
    source = written(
        fake,
        ttl=600,
        metadata={"a": 1},
        resource_limits={"memory": 2048},
        preview={"ports": [3000]},
        network={"egress": "none"},
        on_wake="make",
        env={"A": "1"},
        sleep_policy={"checkpoint_every": 60, "awake_while": "processes"},
    )
    source.sleep("deep-sleep")
    assert source.checkpointed_at
    with source.fork() as fork:
        for seen in (fork, fake.sessions.get(fork.id)):
            assert (seen.resource_limits.memory, seen.preview.ports, seen.network.egress) == (2048, (3000,), "none")
            assert (seen.on_wake, seen.env_names, seen.image, seen.metadata) == ("make", ("A",), "default", {})
            assert (seen.sleep_policy, seen.checkpointed_at) == (SleepPolicy(300, 1800, 60, "processes"), None)
            assert seen.expires_at == seen.created_at + timedelta(days=1)
        assert fork.files.read("a.txt") == "one"
        fork.files.write("a.txt", "two")
    assert source.refresh().state == "deep-sleep"
    assert source.files.read("a.txt") == "one"


def test_a_fork_has_the_settings_of_the_call() -> None:
    fake = FakeBuntime()
    source = written(fake, resource_limits={"memory": 2048, "cpu": 1}, on_wake="make", env={"A": "1"})
    fork = source.fork(ttl=300, metadata={"b": 2}, resource_limits={"memory": 64}, on_wake=None, env={"B": "2"})
    for seen in (fork, fake.sessions.get(fork.id)):
        assert (seen.metadata, seen.on_wake, seen.env_names) == ({"b": 2}, None, ("B",))
        assert (seen.resource_limits.memory, seen.resource_limits.cpu) == (64, 1)
        assert seen.expires_at == seen.created_at + timedelta(seconds=300)


def test_what_is_not_known_of_a_fork_or_a_sessions_files_is_not_invented() -> None:
    fake = FakeBuntime()
    source = written(fake)
    made = fake.sessions.create(snapshot_id=source.snapshot().snapshot_id)
    for session, unknown in ((fake.sessions.open(source.id).fork(), "preview"), (made, "image"), (made, "files_count")):
        with pytest.raises(LookupError):
            getattr(session, unknown)
    assert (made.refresh().image, made.files_count) == ("default", 1)


def test_a_session_says_which_snapshot_it_was_made_of() -> None:
    fake = FakeBuntime()
    source = written(fake)
    first, second = (source.snapshot().snapshot_id for _ in range(2))
    made = fake.sessions.create(snapshot_id=first)
    assert [made.snapshot_id, made.refresh().snapshot_id, made.restore(second).snapshot_id] == [first] * 3
    fake.snapshots.delete(first)
    assert {one.id: one.snapshot_id for one in fake.sessions.list()} == {source.id: None, made.id: first}
    fork = made.fork()
    assert [fork.snapshot_id, fork.refresh().snapshot_id, source.snapshot_id] == [None] * 3


def test_each_of_many_forks_succeeds_or_fails_alone() -> None:
    fake = FakeBuntime().limit_sessions(3)
    source = written(fake)
    first, second, third = source.fork_many(3)
    assert isinstance(first, Session)
    assert isinstance(second, Session)
    assert first.id != second.id
    assert isinstance(third, SessionLimitExceeded)
    assert (third.retryable, third.details["limit"]) == (True, 3)
    assert [session.files.read("a.txt") for session in (first, second)] == ["one", "one"]
    with pytest.raises(SessionLimitExceeded):
        source.fork_many(2)
    with pytest.raises(SessionLimitExceeded):
        source.fork()
    first.delete()
    assert isinstance(source.fork(), Session)


def test_a_repeated_key_forks_and_restores_once() -> None:
    fake = FakeBuntime()
    source = written(fake)
    made = source.snapshot(idempotency_key="a").snapshot_id
    assert source.snapshot(idempotency_key="a").snapshot_id == made
    forks = [source.fork_many(2, idempotency_key="b") for _ in range(2)]
    assert [one.id for one in forks[0] if isinstance(one, Session)] == [
        one.id for one in forks[1] if isinstance(one, Session)
    ]
    source.restore(made, idempotency_key="c")
    source.files.write("a.txt", "two")
    source.restore(made, idempotency_key="c")
    assert source.files.read("a.txt") == "two"


@pytest.mark.parametrize("call", ["snapshot", "fork", "restore", "image"])
def test_a_lost_response_does_nothing_twice(call: str) -> None:
    fake = FakeBuntime()
    source = written(fake)
    made = source.snapshot().snapshot_id
    path = {"snapshot": "snapshots"}.get(call, call)
    failure = BuntimeError("lost", code="unavailable")
    fake.fail("POST", "/images/create" if call == "image" else f"/sessions/{{id}}/{path}", failure, after_work=True)
    calls: dict[str, Callable[[], object]] = {
        "snapshot": source.snapshot,
        "fork": source.fork,
        "restore": lambda: source.restore(made),
        "image": lambda: fake.images.create("base", session_id=source.id),
    }
    calls[call]()
    kept = [one.name for one in fake.snapshots.list()]
    assert kept == {"snapshot": [None, None], "restore": ["before-restore", None]}.get(call, [None])
    assert fake.sessions.list().page()[1] == (2 if call == "fork" else 1)


def test_restoring_replaces_the_files_ends_processes_and_keeps_the_rest() -> None:
    fake = FakeBuntime()
    session = written(fake, metadata={"a": 1})
    before, context = session.processes.start("serve"), session.contexts.create()
    made = session.snapshot()
    after = session.processes.start("serve")
    session.files.write("a.txt", "two")
    session.files.write("b.txt", "new")
    assert session.restore(made.snapshot_id) is session
    assert (session.state, session.metadata, session.files_count, session.active_processes) == (
        "active",
        {"a": 1},
        1,
        0,
    )
    assert session.files.read("a.txt") == "one"
    with pytest.raises(FileNotFound):
        session.files.read("b.txt")
    assert (before.refresh().status, before.exit_code, before.reason) == ("lost", None, "runtime_ended")
    with pytest.raises(ProcessNotFound):
        after.refresh()
    with pytest.raises(ContextLost):
        context.execute("1")
    with session.fork() as fork:
        assert (list(fork.processes.list()), fork.contexts.list()) == ([], [])
    session.sleep()
    assert session.restore(made.snapshot_id).state == "deep-sleep"


def test_the_newest_snapshot_before_a_restore_is_kept_for_a_day() -> None:
    now = NOW
    fake = FakeBuntime(clock=lambda: now)
    session = written(fake, ttl=7 * 86_400)
    made = session.snapshot()
    for content in ("two", "three"):
        session.files.write("a.txt", content)
        session.restore(made.snapshot_id)
    (before,) = fake.snapshots.list(name="before-restore")
    assert before.expires_at == NOW + timedelta(hours=24)
    session.restore(before.snapshot_id)
    assert session.files.read("a.txt") == "three"
    now += timedelta(hours=24)
    assert [one.snapshot_id for one in fake.snapshots.list()] == [made.snapshot_id]


def test_a_session_that_a_run_uses_is_busy() -> None:
    seen: list[str] = []

    def restore(run: FakeRun) -> str:
        with pytest.raises(SessionBusy):
            session.sleep()
        with pytest.raises(SessionBusy) as busy:
            session.restore(made)
        seen.append(busy.value.message)
        return ""

    fake = FakeBuntime(max_retries=0).on_execute("x", restore).on_execute("slow", "one\ntwo\n")
    session = written(fake)
    made = session.snapshot().snapshot_id
    session.execute("x")
    assert seen == ["The session is in use. Try again when its requests have ended."]
    with session.stream("slow") as output:
        next(iter(output))
        with pytest.raises(SessionBusy):
            session.restore(made)
    session.restore(made)


def test_files_that_need_more_than_the_disk_limit_are_refused() -> None:
    fake = FakeBuntime()
    large = fake.sessions.create()
    large.files.write("big", bytes(17 * MB))
    made = large.snapshot().snapshot_id
    small = written(fake, resource_limits={"disk": 16})
    with pytest.raises(DiskFull, match="need 17 MB, and the session's disk limit is 16 MB") as full:
        small.restore(made)
    assert full.value.details == {"limit": 16}
    assert small.files.read("a.txt") == "one"
    assert refused_field(lambda: large.fork(resource_limits={"disk": 16})) == "resourceLimits.disk"
    assert (
        refused_field(lambda: fake.sessions.create(snapshot_id=made, resource_limits={"disk": 16}))
        == "resourceLimits.disk"
    )
    assert fake.sessions.list().page()[1] == 2


def test_a_session_starts_with_the_files_and_variables_of_a_made_image() -> None:
    seen: list[dict[str, str]] = []

    def run(run: FakeRun) -> FakeResult:
        seen.append(dict(run.env))
        return FakeResult()

    fake = FakeBuntime().add_image("base").on_execute("x", run)
    source = written(fake, image="base")
    image = fake.images.create("app", session_id=source.id, env={"A": "1", "B": "1"})
    assert (image.name, image.size_bytes, image.image_id[:4]) == ("app", 3, "img_")
    assert fake.images.create("same", session_id=source.id, env={"A": "1", "B": "1"}).image_id == image.image_id
    source.delete()
    session = fake.sessions.create(image="app", env={"B": "2"})
    session.execute("x")
    assert seen == [{"A": "1", "B": "2"}]
    assert (session.files.read("a.txt"), session.refresh().image, session.env_names) == ("one", "app", ("B",))
    assert [one.name for one in fake.images.list()] == ["app", "base", "same"]
    fake.images.delete("app")
    assert session.files.read("a.txt") == "one"
    with pytest.raises(ImageNotFound):
        fake.sessions.create(image="app")
    with pytest.raises(SessionNotFound):
        fake.images.create("late", session_id=source.id)


def test_an_accounts_image_hides_the_operators_of_the_same_name() -> None:
    fake = FakeBuntime().add_image("app", size_bytes=9)
    fake.images.create("app", snapshot_id=written(fake).snapshot().snapshot_id)
    assert [one.size_bytes for one in fake.images.list()] == [3]
    fake.images.delete("app")
    assert [one.size_bytes for one in fake.images.list()] == [9]
    with pytest.raises(Forbidden):
        fake.images.delete("app")


async def test_the_async_half_snapshots_forks_and_restores() -> None:
    async with AsyncFakeBuntime().limit_sessions(3) as fake:
        session = await fake.sessions.create()
        await session.files.write("a.txt", "one")
        made = await session.snapshot(name="first")
        async with session.fork() as fork:
            assert await fork.files.read("a.txt") == "one"
        many = await session.fork_many(3)
        assert [isinstance(one, BuntimeError) for one in many] == [False, False, True]
        await session.files.write("a.txt", "two")
        await session.restore(made.snapshot_id)
        assert await session.files.read("a.txt") == "one"
        assert [one.name async for one in fake.snapshots.list()] == ["before-restore", "first"]
        await fake.snapshots.delete(made.snapshot_id)
        with pytest.raises(SnapshotNotFound):
            await fake.snapshots.get(made.snapshot_id)
        assert (await fake.images.create("app", session_id=session.id)).name == "app"
