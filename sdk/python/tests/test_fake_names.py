"""The fake's names of sessions, as users' tests use them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from buntime_sdk import InvalidRequest, NameTaken, SessionLimitExceeded, SessionNotFound
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime


def test_a_session_is_found_by_its_name_and_has_its_id_then() -> None:
    fake = FakeBuntime().on_execute("true", "")
    made = fake.sessions.create(name="build")
    assert (made.name, made.existed) == ("build", False)
    found = fake.sessions.get("name:build")
    assert (found.id, found.name, found.existed) == (made.id, "build", True)
    assert [one.id for one in fake.sessions.list(name="build")] == [made.id]
    assert list(fake.sessions.list(name="other")) == []
    opened = fake.sessions.open("name:build")
    opened.files.write("a.txt", "one")
    assert opened.execute_command("true").exit_code == 0
    assert made.files.read("a.txt") == "one"
    assert opened.refresh().id == made.id
    assert made.snapshot().session_id == next(iter(fake.snapshots.list(session_id="name:build"))).session_id


def test_a_taken_name_is_refused_until_its_session_is_deleted_or_expires() -> None:
    now = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)
    fake = FakeBuntime(clock=lambda: now)
    made, other = fake.sessions.create(name="build"), fake.sessions.create()
    with pytest.raises(NameTaken) as taken:
        fake.sessions.create(name="build")
    assert taken.value.details == {"name": "build", "sessionId": made.id}
    with pytest.raises(NameTaken):
        other.update(name="build")
    fake.sessions.delete("name:build")
    with pytest.raises(SessionNotFound):
        fake.sessions.get("name:build")
    assert other.update(name="build").name == "build"
    assert other.update(name=None).name is None
    fake.sessions.create(name="build", ttl=300)
    now += timedelta(seconds=300)
    fake.sessions.create(name="build")


def test_get_or_create_creates_once_and_leaves_what_exists_as_it_is() -> None:
    fake = FakeBuntime().limit_sessions(1)
    first = fake.sessions.get_or_create("build", metadata={"a": 1}, idempotency_key="k")
    assert (first.existed, first.metadata, first.name) == (False, {"a": 1}, "build")
    first.sleep()
    again = fake.sessions.get_or_create("build", metadata={"a": 2}, idempotency_key="l")
    assert (again.id, again.existed, again.name, again.expires_at) == (first.id, True, "build", first.expires_at)
    with pytest.raises(LookupError):
        _ = again.metadata
    assert (again.refresh().state, again.metadata) == ("idle", {"a": 1})
    replayed = [
        fake.sessions.get_or_create("build", metadata={"a": n}, idempotency_key=k) for n, k in ((1, "k"), (2, "l"))
    ]
    assert [(one.id, one.existed) for one in replayed] == [(first.id, False), (first.id, True)]
    with pytest.raises(SessionLimitExceeded):
        fake.sessions.get_or_create("other")


def test_a_name_has_few_characters() -> None:
    fake = FakeBuntime()
    for name in ("", "A", "-a", "a_b", "a" * 64):
        with pytest.raises(InvalidRequest) as refused:
            fake.sessions.create(name=name)
        assert refused.value.details["field"] == "name"


def test_a_fork_has_a_name_of_its_own_or_none() -> None:
    source = FakeBuntime().sessions.create(name="build")
    assert source.fork().name is None
    assert source.fork(name="copy").refresh().name == "copy"
    with pytest.raises(NameTaken):
        source.fork(name="copy")


async def test_calls_at_once_get_the_same_session() -> None:
    async with AsyncFakeBuntime() as fake:
        found = await asyncio.gather(*(fake.sessions.get_or_create("build") for _ in range(10)))
        assert len({one.id for one in found}) == 1
        assert sum(not one.existed for one in found) == 1
