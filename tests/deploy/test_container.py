"""An image made from deploy/Containerfile serves sessions in a privileged container, and ends in order."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contracts.postgres import postgres
from tests.deploy.container import Container, Image, image
from tests.ports import free_port

pytestmark = [pytest.mark.sandbox, pytest.mark.packages]


@pytest.fixture(scope="module")
def made() -> Iterator[Image]:
    with image(Path(tempfile.mkdtemp(dir="/var/tmp", prefix="buntime-image-"))) as one:
        yield one


@contextmanager
def started(made: Image, shared: Path | None = None, **settings: str) -> Iterator[Container]:
    data = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="buntime-container-"))
    container = Container(made, data, settings, shared)
    try:
        container.start()
        yield container
    finally:
        container.stop()
        container.purge()
        data.rmdir()


def test_the_container_serves_a_session_and_the_next_one_has_its_files(made: Image) -> None:
    with started(made) as container:
        key = container.buntime("keys", "create").split()[0]
        session = container.buntime("create", key=key).split()[0]
        assert container.buntime("exec", session, "--", "echo kept > file; id -u", key=key) == "0"
        assert container.inside("cat", "/proc/1/comm") == "tini"
        assert container.stop() == 0
        container.start()
        assert container.buntime("exec", session, "--", "cat file", key=key) == "kept"


@pytest.mark.postgres
def test_a_container_that_is_a_fleet_of_one_drains_and_then_only_has_to_be_told_to_end(made: Image) -> None:
    """As Kubernetes ends a pod: the hook drains, then the container gets SIGTERM."""
    with postgres(free_port()) as database:
        store = database.create("buntime")
        # the container's network reaches no database, so this one has a socket in a directory that both see
        with started(made, database.directory, BUNTIME_STORE=store, BUNTIME_PEER="127.0.0.1:8443") as container:
            key = container.buntime("keys", "create").split()[0]
            session = container.buntime("create", key=key).split()[0]
            assert container.buntime("exec", session, "--", "id -u", key=key) == "0"
            drained = container.buntime("hosts", "drain", "here", "--within", "0", "--wait")
            assert "drains. 0 sessions left" in drained
            assert container.stop() == 0
            assert database.execute("SELECT has_left, state FROM hosts", "buntime") == [(True, "draining")]
            owned = database.execute("SELECT id, host, state, archived FROM sessions", "buntime")
            assert owned == [(session, "", "deep-sleep", True)]


def test_the_image_has_the_server_and_its_clients_and_nothing_of_the_tests(made: Image) -> None:
    checkout = made.root / "opt/buntime"
    left_out = (".git", ".tools", "tests", "bench", "sdk/typescript/node_modules", ".venv/bin/pytest")
    assert [path for path in left_out if (checkout / path).exists()] == []
    assert list((checkout / ".clients").glob("*.whl"))
    assert list((checkout / "src/buntime/web/viewer").glob("scalar.*.gz"))
