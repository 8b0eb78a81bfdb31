"""A server for the clients' tests, as the acceptance tests have one."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import fresh_server, pytest_runtest_makereport
from tests.acceptance.server import Server

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """Shared: tests may not stop it."""
    with fresh_server(pool_size=2) as server:
        server.start()
        yield server
