"""No way to write takes more of the host's disk than the session's quota."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.hostile import process_of
from tests.acceptance.server import Server
from tests.attack.inside.escapes import WAYS
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
DISK = 128  # MB, the session's quota
SLACK = 24 * MB  # for the file system's own metadata and for logs of other sessions
PROGRAM = (Path(__file__).with_name("inside") / "escapes.py").read_text()


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    """Returns a client after the kernel has freed all deleted volumes.

    These tests delete sessions only at their end, because the kernel frees a deleted volume at an unknown time.
    """
    volumes = server.config.data_dir / "volumes"
    subprocess.run(["btrfs", "subvolume", "sync", volumes], check=True, capture_output=True, timeout=120)
    return server.new_client("enterprise")


@pytest.fixture(scope="module")
def sessions(client: Client) -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.delete().done()


@pytest.fixture
def session(client: Client, sessions: list[Session]) -> Session:
    sessions.append(client.open(resourceLimits={"cpu": 1, "disk": DISK}))
    return sessions[-1]


def used(server: Server) -> int:
    """Returns the used bytes of the volumes' file system after a sync."""
    volumes = server.config.data_dir / "volumes"
    subprocess.run(["btrfs", "filesystem", "sync", volumes], check=True, capture_output=True)
    room = os.statvfs(volumes)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_write_passes_the_quota(server: Server, session: Session, way: str) -> None:
    session.write("/root/escapes.py", PROGRAM).done()
    before = used(server)
    process_of(session, f"exec python3 /root/escapes.py {way!r}")
    until(lambda: session.read("/run/outcome").status == 200, "the write to be refused")
    assert session.text("/run/outcome") == "EDQUOT"
    taken = used(server) - before
    assert DISK * MB / 4 < taken <= DISK * MB + SLACK


def test_the_hosts_number_shows_what_is_written(server: Server, session: Session) -> None:
    before = used(server)
    session.output("head -c 60M /dev/urandom > all && sync all")
    assert used(server) - before >= 50 * MB
