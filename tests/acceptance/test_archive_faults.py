"""An archive that is slow, refuses, breaks off or lies for a while costs time. It costs no files and no memory."""

import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.ports import Archive
from tests.acceptance import faulty_store, traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import DISK, fresh_server
from tests.acceptance.faulty_store import FaultyStore, Give, faulty
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, evict, number, wake
from tests.contracts.seaweed import BUCKET, seaweed
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.sandbox

LOCATION = f"s3://{BUCKET}/faults"
BIG = "head -c 60M /dev/urandom > big; sha256sum big"
SEE = "cat file; sha256sum big"
LOOK_SECONDS = 0.05
MOST_GROWTH = 40 << 20  # bytes of memory; less than an object


@dataclass(frozen=True, slots=True)
class Setup:
    server: Server
    client: Client
    store: FaultyStore
    archive: Archive  # past the proxy


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with (
        tempfile.TemporaryDirectory(prefix="buntime-test-s3-", dir=DISK) as directory,
        seaweed(Path(directory)) as real,
        faulty(real.url) as store,
        fresh_server(pool_size=0) as server,
    ):
        environ = {**real.environ, "AWS_ENDPOINT_URL": store.url}
        server.settings |= {**EVICTING, **environ, "BUNTIME_ARCHIVE": LOCATION}
        server.start()
        yield Setup(server, server.new_client("enterprise"), store, open_archive(LOCATION, Path(), real.environ))


@contextmanager
def failing(store: FaultyStore, give: Give) -> Iterator[None]:
    store.fail(give)
    try:
        yield
    finally:
        store.fail(None)


@pytest.fixture
def sleeper(setup: Setup) -> Iterator[tuple[Session, str]]:
    """A session whose files are a full object and an increment in the archive alone, and what it has to show."""
    session = setup.client.open(resourceLimits={"cpu": 1})
    digest = session.output(BIG, timeout=120)
    for content in ("one\n", "two\n"):
        session.write("file", content).done()
        evict(setup.server, session)
    full, increment = setup.archive.names(f"{session.id}/")
    assert len(list(setup.archive.get(increment))) < len(list(setup.archive.get(full)))
    yield session, f"two\n{digest}"
    session.delete()


def _seen(setup: Setup, session: Session) -> tuple[str, list[dict[str, object]]]:
    """Returns the session's files, and the details of the 503s before."""
    told: list[dict[str, object]] = []
    deadline = time.monotonic() + 3 * PATIENCE
    while (answer := session.execute(command=SEE, timeout=60)).status != 200:
        told.append(answer.refused(503, "unavailable"))
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert time.monotonic() < deadline, setup.server.said()[-2000:]
    return str(answer.done()["stdout"]), told


def _awaited[T](setup: Setup, waking: Future[T]) -> T:
    """Asserts that the server's memory stays flat meanwhile."""
    before = _memory(setup.server)
    while not waking.done():
        assert _memory(setup.server) - before < MOST_GROWTH
        wait([waking], timeout=LOOK_SECONDS)
    return waking.result()


def _memory(server: Server) -> int:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", server.metrics(), re.M)
    assert found
    return int(float(found[1]))


FAULTS = [
    faulty_store.erring,
    faulty_store.throttled,
    faulty_store.cut,
    faulty_store.reset,
    faulty_store.stalled,
    faulty_store.truncated,
    faulty_store.flipped,
]


@pytest.mark.parametrize("give", FAULTS)
def test_a_fault_of_the_archive_costs_time_and_nothing_else(
    setup: Setup, sleeper: tuple[Session, str], give: Give
) -> None:
    session, newest = sleeper
    with failing(setup.store, give), ThreadPoolExecutor(1) as pool:
        seen, _ = _awaited(setup, pool.submit(_seen, setup, session))
        assert max(setup.store.reads.values()) > 1
    assert seen == newest
    said = [line for line in setup.server.said().splitlines() if session.id in line]
    assert not any("previous_snapshot_used" in line or "snapshot_damaged" in line for line in said)
    assert not traces.restoring(setup.server.config)


def test_requests_are_told_how_far_a_slow_restore_is(setup: Setup, sleeper: tuple[Session, str]) -> None:
    session, newest = sleeper
    stored = sum(len(piece) for name in setup.archive.names(f"{session.id}/") for piece in setup.archive.get(name))

    with failing(setup.store, faulty_store.late), ThreadPoolExecutor(1) as pool:
        waking = pool.submit(_seen, setup, session)
        until(lambda: number(setup.server, "archive_restores_done_bytes"), "bytes of the restore")
        assert number(setup.server, "archive_restores") == 1
        assert number(setup.server, "archive_restores_total_bytes") == stored
        seen, told = _awaited(setup, waking)
    assert seen == newest
    assert told, "the restore must take longer than a request waits"
    assert all(details["waking"] is True and details["reason"] == "restoring" for details in told)
    assert all(0 < int(str(details["restoredBytes"])) <= stored for details in told)
    assert {details["totalBytes"] for details in told} == {stored}
    assert number(setup.server, "archive_restores") == 0


def test_a_delete_during_a_stall_waits_for_nothing_and_leaves_nothing(
    setup: Setup, sleeper: tuple[Session, str]
) -> None:
    session, _ = sleeper
    volume = traces.volume_of(setup.server.config, session.id)

    def silent(reading: faulty_store.Reading) -> None:
        reading.head()
        reading.write(7 << 20)
        reading.store.ended.wait()

    with failing(setup.store, silent), ThreadPoolExecutor(1) as pool:
        waking = pool.submit(wake, session)
        until(lambda: number(setup.server, "archive_restores_done_bytes"), "a restore to begin")
        session.delete().done()
        assert waking.result().status in (404, 503)
        assert set(setup.store.reads.values()) == {1}
        until(lambda: not setup.archive.names(f"{session.id}/"), "its objects to be deleted")
    session.look().refused(404, "session_not_found")
    assert not traces.restoring(setup.server.config)
    assert volume not in traces.volumes(setup.server.config)


# --- uploads ---


def _killed_while_it_saves(setup: Setup) -> Session:
    """Kills the server in the middle of an upload. Returns the session."""
    session = setup.client.open(resourceLimits={"cpu": 2})
    session.output("head -c 200M /dev/urandom > big", timeout=120)
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(ask_to_sleep, session)
        until(lambda: setup.archive.uploads(f"{session.id}/"), "an upload to begin")
        setup.server.kill()
        asleep.exception()  # the answer may have come before
    assert setup.archive.uploads(f"{session.id}/")
    return session


def test_the_start_after_a_kill_removes_what_the_upload_left(setup: Setup) -> None:
    session = _killed_while_it_saves(setup)
    left = {upload.id for upload in setup.archive.uploads("")}
    setup.server.start()
    until(lambda: not left & {upload.id for upload in setup.archive.uploads("")}, "the rest of the upload to go")
    session.delete().done()
    until(lambda: not setup.archive.names("") and not setup.archive.uploads(""), "all of it to go")
