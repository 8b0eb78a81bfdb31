"""A server for the clients' tests, like the one of the acceptance tests."""

from collections.abc import Iterator

import pytest

from tests.acceptance.client import Client
from tests.acceptance.conftest import fresh_server, pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.clients.assistant import Place, door

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """Shared: tests may not stop it."""
    with fresh_server(pool_size=2) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    """Where `buntime mcp` is reached, with an account of its own."""
    url = f"http://127.0.0.1:{server.config.port}"
    with door(url) as reached:
        yield Place(url, reached, server.cli("keys", "create", "--plan", "enterprise"))


@pytest.fixture
def past(server: Server, place: Place) -> Client:
    """The same account, past the tools."""
    return server.client(place.key)
