"""The archive in a real S3 store, configured with its URL and the usual variables, as an operator does."""

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.ports import Archive
from tests.acceptance import traces
from tests.acceptance.client import Client
from tests.acceptance.conftest import DISK, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, evict, number, state, wait_until_evicted
from tests.contracts.seaweed import BUCKET, seaweed
from tests.waiting import until

pytestmark = pytest.mark.sandbox

LOCATION = f"s3://{BUCKET}/sessions/of-a-test"


@dataclass(frozen=True, slots=True)
class Setup:
    """A server, and another client of its archive's store."""

    server: Server
    client: Client
    archive: Archive
    store: Path  # the S3 server's directory, which identifies its processes


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with (
        tempfile.TemporaryDirectory(prefix="buntime-test-s3-", dir=DISK) as directory,
        seaweed(Path(directory)) as store,
        fresh_server(pool_size=0) as server,
    ):
        server.settings |= {**EVICTING, **store.environ, "BUNTIME_ARCHIVE": LOCATION}
        server.start()
        archive = open_archive(LOCATION, Path(), store.environ)
        yield Setup(server, server.new_client(), archive, Path(directory))


def test_a_session_sleeps_in_s3_and_comes_back_from_there_and_nothing_of_it_stays(setup: Setup) -> None:
    session = setup.client.open()
    session.output("echo one > file; rm /etc/motd; head -c 30M /dev/urandom > big")
    before = session.output("sha256sum file big; stat -c '%n %a %Y' file big; ls -A /etc")
    evict(setup.server, session)
    (first,) = setup.archive.names(f"{session.id}/")
    assert sum(len(piece) for piece in setup.archive.get(first)) > 30_000_000
    with ThreadPoolExecutor(4) as pool:
        said = list(
            pool.map(lambda _: session.output("sha256sum file big; stat -c '%n %a %Y' file big; ls -A /etc"), range(4))
        )
    assert said == [before] * 4
    session.write("file", "two").done()
    evict(setup.server, session)
    newest = max(set(setup.archive.names("")) - {first})
    setup.archive.delete(newest)
    assert session.text("file") == "one\n", "the previous snapshot"
    assert "previous_snapshot_used" in setup.server.said()
    session.delete().done()
    until(lambda: not setup.archive.names(""), "its objects to be deleted")
    traces.wait_until_whole(setup.server.config, 0)


def test_a_store_that_stops_answering_during_a_save_holds_nobody_up_and_gets_it_later(setup: Setup) -> None:
    session = setup.client.open()
    session.output("echo kept > file; head -c 20M /dev/urandom > big")
    with ThreadPoolExecutor(1) as pool, _stopped(setup.store):
        sleeping = pool.submit(ask_to_sleep, session)
        until(lambda: number(setup.server, "archive_transfers"), "a save to begin")
        assert session.text("file") == "kept\n", "a wake must not wait for the store"
        assert sleeping.result().status == 200
        assert ask_to_sleep(session).done()["state"] == "deep-sleep"
        assert session.text("file") == "kept\n"
        ask_to_sleep(session).done()
        assert state(session) == "deep-sleep"
        assert traces.has_volume(setup.server.config, session.id)
    wait_until_evicted(setup.server, session)
    assert session.text("file") == "kept\n"
    evict(setup.server, session)
    until(lambda: 1 <= len(setup.archive.names(f"{session.id}/")) <= 2, "the objects of the attempts to be deleted")
    session.delete().done()
    until(lambda: not setup.archive.names(""), "its objects to be deleted")


@contextmanager
def _stopped(store: Path) -> Iterator[None]:
    """Stops the S3 server's processes: it accepts connections and does not answer."""
    processes = list(_processes_with(f"-dir={store}".encode()))
    assert processes
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _processes_with(argument: bytes) -> Iterator[int]:
    for directory in traces.PROC.glob("[0-9]*"):
        with suppress(OSError):  # a process that has ended
            if argument in (directory / "cmdline").read_bytes().split(b"\0"):
                yield int(directory.name)
