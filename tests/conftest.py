"""How tests are spread over processes (see scripts/test), and the server that most acceptance tests share."""

from collections.abc import Iterable, Iterator

import pytest

from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """The tests of a file stay in one process, because they share fixtures. Tests with servers of their own need not."""
    for item in items:
        if not item.get_closest_marker("xdist_group") and "servers" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for each process of pytest. Shared: tests may not stop it."""
    with fresh_server(pool_size=6) as server:
        server.start()
        yield server
        assert server.stop() == 0
