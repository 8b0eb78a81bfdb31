"""Sessions that are awake are archived from time to time, in a real S3 store, and go on meanwhile."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.ports import Archive
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import DISK, Servers, fresh_server
from tests.acceptance.leftovers import wait_until_tidy
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, deep_sleep, evict, number, state
from tests.contracts.seaweed import BUCKET, seaweed
from tests.waiting import until

pytestmark = pytest.mark.sandbox

LOCATION = f"s3://{BUCKET}/checkpoints"
OFTEN = {"sleepPolicy": {"checkpointEvery": 5}}
BIG = "head -c 40M /dev/urandom > big"  # enough for a parent


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[Server, Archive]]:
    with (
        tempfile.TemporaryDirectory(prefix="buntime-test-s3-", dir=DISK) as directory,
        seaweed(Path(directory)) as started,
        fresh_server(pool_size=0) as server,
    ):
        server.settings |= {**EVICTING, **started.environ, "BUNTIME_ARCHIVE": LOCATION}
        server.start()
        yield server, open_archive(LOCATION, Path(), started.environ)


@pytest.fixture(scope="module")
def server(store: tuple[Server, Archive]) -> Server:
    return store[0]


@pytest.fixture(scope="module")
def archive(store: tuple[Server, Archive]) -> Archive:
    return store[1]


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    session = client.open(**OFTEN)
    yield session
    session.delete()


def checkpointed(session: Session) -> str | None:
    at: str | None = session.look().done()["checkpointedAt"]
    return at


def wait_for_checkpoint(server: Server, archive: Archive, session: Session) -> list[str]:
    """Waits until a checkpoint of the session is over that began after this call, if the session has changed. Returns
    the names of its objects."""
    before = set(archive.names(f"{session.id}/"))
    until(
        lambda: set(archive.names(f"{session.id}/")) - before and not number(server, "archive_transfers"), "an object"
    )
    return sorted(archive.names(f"{session.id}/"))


def size_of(archive: Archive, name: str) -> int:
    return sum(len(piece) for piece in archive.get(name))


def test_changes_of_a_session_get_into_the_archive_while_it_works_and_nothing_else_does(
    server: Server, archive: Archive, session: Session
) -> None:
    session.output(BIG)
    process = session.sleeper()
    taken = number(server, "checkpoint_seconds_count")
    (first,) = wait_for_checkpoint(server, archive, session)
    assert size_of(archive, first) > 40_000_000
    session.output("rm big; echo one > file; head -c 3M /dev/urandom > more")
    first, second = wait_for_checkpoint(server, archive, session)[:2]
    assert size_of(archive, second) < 8_000_000
    until(lambda: number(server, "checkpoint_seconds_count") > taken + 1, "them to be counted")
    assert state(session) == "active"
    assert checkpointed(session)
    assert session.output("pgrep -x sleep").strip() == process
    evict(server, session)
    assert session.output("cat file; ls; stat -c %s more") == f"one\nfile\nmore\n{3 << 20}\n"


def test_a_quiet_session_costs_nothing(server: Server, archive: Archive, client: Client, session: Session) -> None:
    """Another session, which changes, tells the time."""
    session.output("echo quiet > file")
    other = client.open(**OFTEN)
    until(lambda: checkpointed(session), "a checkpoint")
    objects, at = archive.names(f"{session.id}/"), checkpointed(session)
    for turn in range(3):
        other.write("file", str(turn)).done()
        wait_for_checkpoint(server, archive, other)
    assert (archive.names(f"{session.id}/"), checkpointed(session)) == (objects, at)
    other.delete().done()


def test_a_suspended_session_keeps_its_processes_and_its_last_changes_are_archived(
    server: Server, archive: Archive, session: Session
) -> None:
    session.sleeper()
    until(lambda: checkpointed(session), "a checkpoint")
    session.write("file", "last").done()
    at = checkpointed(session)
    assert ask_to_sleep(session, "idle").done()["state"] == "idle"
    until(lambda: checkpointed(session) != at, "the next one")
    assert state(session) == "idle"
    assert session.output("cat file; pgrep -x -c sleep") == "last1\n"


def test_sessions_have_the_plans_interval_where_the_archive_is_not_a_directory(
    client: Client, servers: Servers
) -> None:
    session = client.open()
    assert session.look().done()["sleepPolicy"]["checkpointEvery"] == 300
    assert session.patch(sleepPolicy={"checkpointEvery": "never"}).done()["sleepPolicy"]["checkpointEvery"] == "never"
    assert session.patch(sleepPolicy=None).done()["sleepPolicy"]["checkpointEvery"] == 300
    session.delete().done()
    local = servers.start(pool_size=0).new_client().open()
    assert local.look().done()["sleepPolicy"]["checkpointEvery"] == "never"


def test_a_session_whose_volume_is_lost_does_not_go_on_from_a_checkpoint(servers: Servers) -> None:
    server = servers.start(pool_size=0, **EVICTING)
    session = server.new_client().open(**OFTEN)
    session.output(BIG)
    evict(server, session)
    session.write("file", "one").done()
    at = checkpointed(session)
    until(lambda: checkpointed(session) != at, "a checkpoint")
    traces.kill_sandbox(server.config, session.id)
    server.stop()
    volume = server.config.data_dir / "volumes" / traces.volume_of(server.config, session.id)
    subprocess.run(["btrfs", "-q", "subvolume", "delete", volume], check=True)
    server.start()
    archive = server.config.data_dir / "archive"
    objects = traces.objects(archive, session.id)
    details = session.execute(command="cat file").refused(409, "invalid_state")
    assert details["reason"] == "volume_lost"
    assert traces.objects(archive, session.id) == objects
    session.delete().done()
    wait_until_tidy(server.config, lambda: {str(path.relative_to(archive)) for path in traces.objects(archive, "")})


def _change_until_a_checkpoint(server: Server, session: Session) -> None:
    taken = number(server, "checkpoint_seconds_count")

    def is_taken() -> bool:
        session.output("date > now")
        return number(server, "checkpoint_seconds_count") > taken

    until(is_taken, "a checkpoint")


@pytest.mark.parametrize("megabytes", [4, 50])
def test_a_session_with_checkpoints_can_rewrite_all_its_files_again_and_again(servers: Servers, megabytes: int) -> None:
    """Also a small one, which has no parent. Each round ends after a checkpoint."""
    server = servers.start(pool_size=0, BUNTIME_TICK_MS="50")
    disk = 10 * megabytes
    session = server.new_client("enterprise").open(resourceLimits={"disk": disk, "cpu": 1}, **OFTEN)
    write = f"for i in 1 2 3 4 5 6; do head -c {megabytes}M /dev/urandom > f$i || exit 1; done"
    session.output(write, timeout=120)
    for _ in range(3):
        _change_until_a_checkpoint(server, session)
        for _ in range(2):
            session.output(write, timeout=120)
    # until it is measured, it can exceed its limit by what it shares
    session.execute(command=f"head -c {2 * disk}M /dev/zero > more", timeout=120).refused(507, "disk_full")
    session.output("rm more; echo there is room > file")
    deep_sleep(session)
    assert session.text("file") == "there is room\n"
