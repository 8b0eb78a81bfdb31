"""Snapshots, forks, restores and images of the Python SDK, with a real server."""

from collections.abc import Iterator

import httpx2
import pytest
from buntime_sdk import (
    AsyncBuntime,
    Buntime,
    FileNotFound,
    Forbidden,
    ImageNotFound,
    InvalidRequest,
    Session,
    SessionLimitExceeded,
    SnapshotNotFound,
)

from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.config.port}"


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    key = server.new_client("enterprise").key
    assert key
    return key


@pytest.fixture(scope="module")
def client(key: str, url: str) -> Iterator[Buntime]:
    with Buntime(key, url) as client:
        yield client


@pytest.fixture
def session(client: Buntime) -> Iterator[Session]:
    with client.sessions.create(ttl=600, metadata={"a": 1}, env={"A": "1"}, on_wake="true") as session:
        session.files.write("a.txt", "one")
        yield session


def _told(session: Session) -> tuple[object, ...]:
    settings = (session.metadata, session.on_wake, session.env_names, session.preview, session.network)
    return (*settings, session.image, session.snapshot_id)


class LosesEachFirstAnswer(httpx2.HTTPTransport):
    """Drops the first answer to each path, after the server has done its work."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = set[str]()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        path = request.url.path
        if request.method == "POST" and path not in self.lost:
            self.lost.add(path)
            response.read()
            response.close()
            raise httpx2.ReadError("lost", request=request)
        return response


def test_a_snapshot_outlives_its_session_and_starts_others(client: Buntime) -> None:
    with client.sessions.create(ttl=600) as source:
        source.files.write("a.txt", "one")
        made = source.snapshot(name="first", metadata={"user": "u1"}, ttl=600)
        assert (made.session_id, made.name, made.metadata, made.image) == (
            source.id,
            "first",
            {"user": "u1"},
            "default",
        )
        assert made.expires_at is not None
        assert (made.expires_at - made.created_at).total_seconds() == 600
        assert made.size_bytes > 0
        source.files.write("a.txt", "two")
    assert client.snapshots.get(made.snapshot_id) == made
    with client.sessions.create(snapshot_id=made.snapshot_id) as session:
        assert session.files.read("a.txt") == "one"
        assert session.snapshot_id == made.snapshot_id
        assert (session.refresh().image, session.files_count) == ("default", 1)
        assert session.snapshot_id == made.snapshot_id
    client.snapshots.delete(made.snapshot_id)
    with pytest.raises(SnapshotNotFound) as gone:
        client.sessions.create(snapshot_id=made.snapshot_id)
    assert gone.value.details == {"snapshotId": made.snapshot_id}


def test_snapshots_are_listed_over_several_pages_and_filtered(client: Buntime, session: Session) -> None:
    kept = {session.snapshot(name=name).snapshot_id for name in ("a", "a", "b")}
    assert {each.snapshot_id for each in client.snapshots.list(session_id=session.id, page_size=2)} == kept
    assert client.snapshots.list(session_id=session.id, name="a").page()[1] == 2
    for snapshot_id in kept:
        client.snapshots.delete(snapshot_id)
    assert list(client.snapshots.list(session_id=session.id)) == []


def test_a_fork_is_known_before_and_after_a_refresh(session: Session) -> None:
    with session.fork(metadata={"b": 2}, on_wake=None) as fork:
        before = _told(fork)
        assert before == _told(fork.refresh())
        assert (fork.metadata, fork.on_wake, fork.env_names) == ({"b": 2}, None, ("A",))
        assert fork.files.read("a.txt") == "one"
        assert fork.execute_command("echo $A").stdout == "1\n"
        fork.files.write("a.txt", "two")
    assert session.files.read("a.txt") == "one"


def test_each_of_many_forks_succeeds_or_fails_alone(server: Server, url: str) -> None:
    account = server.cli("accounts", "create", "--plan", "paid", "--set", "sessions=3", "--set", "fork_count=4")
    with Buntime(server.cli("keys", "create", "--account", account), url) as client:
        source = client.sessions.create(ttl=600)
        made = source.fork_many(3, ttl=600)
        kinds = sorted(type(one).__name__ for one in made)
        assert kinds == ["Session", "Session", "SessionLimitExceeded"]
        with pytest.raises(SessionLimitExceeded):
            source.fork()
        with pytest.raises(Forbidden) as refused:
            source.fork_many(5)
        assert refused.value.details["limit"] == 4
        for session in client.sessions.list():
            session.delete()


def test_a_restore_brings_the_files_back_and_can_be_undone(client: Buntime, session: Session) -> None:
    made = session.snapshot()
    session.files.write("a.txt", "two")
    session.files.write("b.txt", "new")
    assert session.restore(made.snapshot_id) is session
    assert (session.state, session.metadata) == ("active", {"a": 1})
    assert session.files.read("a.txt") == "one"
    with pytest.raises(FileNotFound):
        session.files.read("b.txt")
    (before,) = client.snapshots.list(session_id=session.id, name="before-restore")
    session.restore(before.snapshot_id)
    assert session.files.read("b.txt") == "new"
    session.sleep("deep-sleep")
    assert session.restore(made.snapshot_id).state == "deep-sleep"
    assert session.files.read("a.txt") == "one"


def test_nothing_is_done_twice_when_each_first_response_is_lost(key: str, url: str) -> None:
    with Buntime(key, url, transport=LosesEachFirstAnswer(), retry_delay=0.01) as client:
        source = client.sessions.create(ttl=600, metadata={"suite": "lost"})
        made = source.snapshot()
        forks = source.fork_many(2, metadata={"suite": "lost"})
        source.restore(made.snapshot_id)
        client.images.create("lost", snapshot_id=made.snapshot_id)
        names = [one.name for one in client.snapshots.list(session_id=source.id)]
        assert sorted(names, key=str) == [None, "before-restore"]
        listed = {one.id for one in client.sessions.list(metadata={"suite": "lost"})}
        assert listed == {source.id, *(one.id for one in forks if isinstance(one, Session))}
        assert len(listed) == 3
        client.images.delete("lost")
        for session_id in listed:
            client.sessions.delete(session_id)


def test_a_session_starts_with_the_files_and_variables_of_a_made_image(client: Buntime, session: Session) -> None:
    image = client.images.create("app", session_id=session.id, env={"B": "2"})
    assert image in list(client.images.list())
    session.files.write("a.txt", "two")
    with client.sessions.create(image="app") as made:
        assert made.files.read("a.txt") == "one"
        assert made.execute_command("echo $B").stdout == "2\n"
        client.images.delete("app")
        assert made.files.read("a.txt") == "one"
    with pytest.raises(ImageNotFound):
        client.sessions.create(image="app")
    with pytest.raises(InvalidRequest):
        client.images.create("app")


async def test_the_async_half_works_with_a_server(key: str, url: str) -> None:
    async with AsyncBuntime(key, url) as client, client.sessions.create(ttl=600) as session:
        await session.files.write("a.txt", "one")
        made = await session.snapshot(name="async")
        async with session.fork() as fork:
            assert await fork.files.read("a.txt") == "one"
        await session.files.write("a.txt", "two")
        await session.restore(made.snapshot_id)
        assert await session.files.read("a.txt") == "one"
        kept = [one async for one in client.snapshots.list(session_id=session.id)]
        assert {one.name for one in kept} == {"before-restore", "async"}
        for one in kept:
            await client.snapshots.delete(one.snapshot_id)
