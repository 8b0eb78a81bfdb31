"""Two hosts of a fleet whose packages are of different days: each has images with another content."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.image import image_id, sources
from tests.acceptance.client import Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import IMAGES, Server
from tests.acceptance.sleeping import deep_sleep
from tests.contracts.postgres import Server as Database
from tests.contracts.postgres import postgres
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres]

DAY = "/etc/day"  # a file of the image


@pytest.fixture
def database() -> Iterator[Database]:
    with postgres(free_port()) as database:
        database.create("buntime")
        yield database


def of_another_day(directory: Path) -> None:
    """Images like those of this machine, with one file more, and without some large ones. The others are hard links."""
    made = image_id(sources())
    directory.mkdir(mode=0o700)
    subprocess.run(["cp", "-al", str(IMAGES / made), str(directory / made)], check=True)
    for large in ("libexec/gcc", "lib/gcc", "lib/python3", "lib/python3.13", "lib/git-core", "include", "share"):
        shutil.rmtree(directory / made / "usr" / large)
    (directory / made / DAY.lstrip("/")).write_text(directory.name)


def day(session: Session) -> str:
    """Of the image on which the session stands. Waits until its host has the image."""
    said = list[str]()

    def asked() -> bool:
        answer = session.execute(command=f"cat {DAY}")
        if answer.status == 200:
            said.append(str(answer.json()["stdout"]))
        return bool(said)

    until(asked, "the image")
    return said[0]


def default_of(server: Server) -> str:
    return (server.config.data_dir / "default-image").read_text().strip()


def is_here(server: Server, image: str) -> bool:
    return (Path(server.settings["BUNTIME_IMAGES_DIR"]) / image).is_dir()


def test_hosts_of_different_days_exchange_sessions_forks_snapshots_and_images(
    servers: Servers, database: Database, tmp_path: Path
) -> None:
    shared = {
        "BUNTIME_STORE": database.address("buntime"),
        "BUNTIME_ARCHIVE": str(tmp_path / "archive"),
        "BUNTIME_MASTER_KEY_FILE": str(tmp_path / "master.key"),
    }
    monday, tuesday = servers.make(), servers.make()
    for server, name in ((monday, "monday"), (tuesday, "tuesday")):
        images = server.config.data_dir.parent / name
        of_another_day(images)
        server.settings |= shared | {"BUNTIME_IMAGES_DIR": str(images)}

    monday.start()
    key = monday.cli("keys", "create")
    client, other = monday.client(key), tuesday.client(key)
    first = client.open(name="first")
    assert day(first) == "monday"
    first.write("kept", "of first").done()
    snapshot = client.call("POST", f"/sessions/{first.id}/snapshots", json_body={}).done()["snapshotId"]
    client.call("POST", "/images/create", json_body={"sessionId": first.id, "name": "mine"}).done()
    deep_sleep(first)
    of_monday = default_of(monday)

    database.execute("DELETE FROM default_images", "buntime")  # as if both had started at a time without an archive
    monday.stop()
    tuesday.start()
    of_tuesday = default_of(tuesday)
    assert of_tuesday != of_monday
    second = other.open(name="second")
    assert day(second) == "tuesday"
    tuesday.stop()
    tuesday.start()  # saves its image at once, since a session needs it
    monday.start()  # does the same
    assert default_of(monday) == of_tuesday, "the fleet has one from now on"
    assert day(second) == "tuesday"

    monday.cli("hosts", "drain", "here", "--within", "0", "--wait")
    moved = Session(other, first.id)
    assert day(moved) == "monday"
    assert moved.text("kept") == "of first"
    assert is_here(tuesday, of_monday)
    (fork,) = other.call("POST", f"/sessions/{first.id}/fork", json_body={}).done()["sessions"]
    forked = Session(other, fork["session"]["sessionId"])
    for made in (forked, other.open(snapshotId=snapshot), other.open(image="mine")):
        assert (day(made), made.text("kept")) == ("monday", "of first")
        made.delete().done()
    moved.delete().done()

    monday.cli("hosts", "resume", "here")
    deep_sleep(Session(other, second.id))
    tuesday.cli("hosts", "drain", "here", "--within", "0", "--wait")
    assert day(Session(client, second.id)) == "tuesday"
