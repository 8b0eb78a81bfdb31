"""A server that is attacked, with its neighbour: shared by all rows."""

from collections.abc import Iterator, Mapping

import pytest

from tests.acceptance.conftest import fresh_server, pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.attack.attack import Field, Target
from tests.attack.host_settings import settings
from tests.attack.neighbour import neighbour
from tests.attack.outside_world import outside

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


@pytest.fixture(scope="package")
def settings_before() -> Mapping[str, str]:
    """Of the host's kernel, before the server's first start."""
    return settings()


@pytest.fixture(scope="package")
def server(settings_before: Mapping[str, str]) -> Iterator[Server]:
    """Shared: tests may not stop it."""
    with fresh_server(pool_size=6) as server:
        server.settings["BUNTIME_HOST"] = "0.0.0.0"  # another address reaches its edge
        server.start()
        yield server


@pytest.fixture(scope="module")
def field(server: Server) -> Iterator[Field]:
    with outside() as place, neighbour(server.new_client("enterprise"), server.new_client("enterprise")) as b:
        target = Target(server.new_client("free"), b.session.client, server.new_client("enterprise"), place, True)
        yield Field(target, b)
