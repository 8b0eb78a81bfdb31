"""Deleting leaves nothing: no objects of chains and layers, no parts of uploads, no volumes and no keys."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.ports import Archive
from buntime.stores import store_file
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import DISK, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, deep_sleep, evict, number
from tests.contracts.seaweed import BUCKET, Seaweed, seaweed
from tests.waiting import until

pytestmark = pytest.mark.sandbox

LOCATION = f"s3://{BUCKET}/deletes"


@pytest.fixture(scope="module")
def real() -> Iterator[Seaweed]:
    with (
        tempfile.TemporaryDirectory(prefix="buntime-test-s3-", dir=DISK) as directory,
        seaweed(Path(directory)) as store,
    ):
        yield store


@pytest.fixture
def server(real: Seaweed) -> Iterator[Server]:
    with fresh_server(pool_size=0) as server:
        server.settings |= {**EVICTING, **real.environ, "BUNTIME_ARCHIVE": LOCATION}
        server.start()
        yield server


@pytest.fixture
def archive(real: Seaweed) -> Archive:
    return open_archive(LOCATION, Path(), real.environ)


def _with_a_chain(server: Server, client: Client, archive: Archive) -> Session:
    session = client.open(resourceLimits={"cpu": 1})
    session.output("head -c 40M /dev/urandom > big", timeout=120)
    for content in ("one", "two", "three"):
        session.write("file", content).done()
        evict(server, session)
    assert len(archive.names(f"{session.id}/")) == 3
    return session


def _keys(server: Server) -> list[bytes]:
    with closing(sqlite3.connect(f"file:{store_file(server.config)}?mode=ro", uri=True)) as store:
        found = store.execute("SELECT key FROM sessions UNION SELECT key FROM layers").fetchall()
    return [key.encode() for (key,) in found if key]


def test_nothing_is_left_of_deleted_sessions_snapshots_and_images(server: Server, archive: Archive) -> None:
    client = server.new_client("enterprise")
    session = _with_a_chain(server, client, archive)
    taken = client.call("POST", f"/sessions/{session.id}/snapshots", json_body={}).done()
    client.call("POST", "/images/create", json_body={"name": "made", "sessionId": session.id}).done()
    standing = client.open(image="made")
    standing.write("file", "four").done()
    deep_sleep(standing)
    until(lambda: number(server, "layers_unsaved") == 0, "the archive to have all layers")
    keys = _keys(server)
    assert len(keys) >= 4
    assert len({name.partition("/")[0] for name in archive.names("")}) >= 4

    session.delete().done()
    standing.delete().done()
    client.call("DELETE", f"/snapshots/{taken['snapshotId']}").done()
    client.call("DELETE", "/images/made").done()
    until(lambda: not archive.names(""), "all objects to be deleted")
    until(lambda: not traces.volumes(server.config), "all volumes to be removed")
    until(lambda: not _keys(server), "all keys to be destroyed")
    assert not archive.uploads("")
    assert not traces.parents(server.config)
    assert not traces.restoring(server.config)
    assert server.stop() == 0
    kept = b"".join(path.read_bytes() for path in server.config.data_dir.glob("buntime.db*"))
    assert not [key for key in keys if key in kept]
