"""Fixtures of the client tests: a running `buntime mcp`."""

from collections.abc import Iterator

import pytest

from tests.acceptance.client import Client
from tests.acceptance.conftest import pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.clients.assistant import Target, serve_mcp

__all__ = ["pytest_runtest_makereport"]  # a failed test shows its server's log


@pytest.fixture(scope="module")
def target(server: Server) -> Iterator[Target]:
    """Runs `buntime mcp --http` with a new account."""
    url = f"http://127.0.0.1:{server.config.port}"
    with serve_mcp(url) as reached:
        yield Target(url, reached, server.cli("keys", "create", "--plan", "enterprise"))


@pytest.fixture
def client(server: Server, target: Target) -> Client:
    """A client that uses the API directly, with the same account."""
    return server.client(target.key)
