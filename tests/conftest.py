"""Provides the server that most acceptance tests share."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Starts one server per pytest process. Tests must not stop it."""
    with fresh_server(pool_size=6) as server:
        server.start()
        yield server
        assert server.stop() == 0
