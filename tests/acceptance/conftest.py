"""Fixtures of the acceptance tests. tests/conftest.py has the server that most tests share."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.parts import PREFIX, hold, wait_for_part

DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory
LOG_SHOWN = 3000  # characters of a server's log that a failed test shows


@contextmanager
def fresh_server(pool_size: int, *, alone: bool = False) -> Iterator[Server]:
    """Yields a server that is not started. Asserts at the end that it leaves nothing on the host.

    With `alone`, no other test runs, so this need not wait for a free part of the host's addresses.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=DISK))
    server = Server(directory / "data", pool_size=pool_size)
    try:
        if alone:
            hold(server.config.data_dir)
        else:
            wait_for_part(server.config)
        yield server
    finally:
        server.end()
        left = traces.left_behind(server.config)
        shutil.rmtree(directory)
        assert not left, "left on the host after purge:\n" + "\n".join(left)


class Servers:
    """Makes servers for one test, and ends them after it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.made: list[Server] = []

    def make(self, *, pool_size: int = 1) -> Server:
        """Returns a server that is not started."""
        server = self._stack.enter_context(fresh_server(pool_size))
        self.made.append(server)
        return server

    def start(self, *, pool_size: int = 1, **settings: str) -> Server:
        server = self.make(pool_size=pool_size)
        server.settings |= settings
        server.start()
        return server


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(scope="module")
def paid(server: Server) -> Client:
    return server.new_client("paid")


@pytest.fixture(scope="module")
def free(server: Server) -> Client:
    return server.new_client("free")


@pytest.fixture(scope="module")
def enterprise(server: Server) -> Client:
    """A client for tests that send more requests a minute than the paid plan allows."""
    return server.new_client("enterprise")


@pytest.fixture
def session(paid: Client) -> Iterator[Session]:
    session = paid.open()
    yield session
    session.delete()


@pytest.fixture
def other(paid: Client) -> Iterator[Session]:
    """Another session on the same host as `session`."""
    session = paid.open()
    yield session
    session.delete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the end of its servers' logs with a failed test."""
    report = yield
    if report.failed:
        for used in getattr(item, "funcargs", {}).values():
            for server in used.made if isinstance(used, Servers) else [used] if isinstance(used, Server) else []:
                report.sections.append((f"log of {server.config.data_dir}", server.said()[-LOG_SHOWN:]))
    return report


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Iterator[Session]:
    session = server.new_client("enterprise").open()
    session.output("true")
    yield session
    session.delete().done()


@pytest.fixture
def victim(enterprise: Client) -> Iterator[Session]:
    session = enterprise.open()
    yield session
    session.delete().done()
