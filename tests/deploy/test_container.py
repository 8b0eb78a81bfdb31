"""An image made from deploy/Containerfile serves sessions in a privileged container, and again after its end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.container import Container, image

pytestmark = [pytest.mark.sandbox, pytest.mark.packages]


@pytest.fixture(scope="module")
def bundle() -> Iterator[Path]:
    with image(Path(tempfile.mkdtemp(dir="/var/tmp", prefix="buntime-image-"))) as made:
        yield made


@pytest.fixture
def container(bundle: Path) -> Iterator[Container]:
    data = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="buntime-container-"))
    container = Container(bundle, data)
    try:
        container.start()
        yield container
    finally:
        container.stop()
        container.purge()
        data.rmdir()


def test_the_container_serves_a_session_and_the_next_one_has_its_files(container: Container) -> None:
    key = container.buntime("keys", "create").split()[0]
    session = container.buntime("create", key=key).split()[0]
    assert container.buntime("exec", session, "--", "echo kept > file; id -u", key=key) == "0"
    assert container.inside("cat", "/proc/1/comm") == "tini"
    assert container.stop() == 0
    container.start()
    assert container.buntime("exec", session, "--", "cat file", key=key) == "kept"


def test_the_image_has_the_server_and_its_clients_and_nothing_of_the_tests(bundle: Path) -> None:
    checkout = bundle / "rootfs/opt/buntime"
    left_out = (".git", ".tools", "tests", "bench", "sdk/typescript/node_modules", ".venv/bin/pytest")
    assert [path for path in left_out if (checkout / path).exists()] == []
    assert list((checkout / ".clients").glob("*.whl"))
    assert list((checkout / "src/buntime/web/viewer").glob("scalar.*.gz"))
