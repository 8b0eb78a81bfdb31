"""Debian's Chromium, and visitors who use it."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Queue
from typing import Protocol

import pytest
from playwright.sync_api import Browser, sync_playwright

from buntime.web.built_clients import NPM_PACKAGE, WHEEL, ClientFile
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.app.serving import serving
from tests.browser.visitor import Visitor

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


FILES = (ClientFile(WHEEL, b"a wheel"), ClientFile(NPM_PACKAGE, b"a package"))


@dataclass(frozen=True)
class Served:
    url: str
    key: str


class OpenSession(Protocol):
    def __call__(self, **fields: object) -> Session: ...


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one file: Playwright keeps a loop running in the main thread, where other tests need their own."""
    path = shutil.which("chromium")
    assert path, "Chromium is missing: scripts/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # we may be root
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    """The API on fakes, in a thread: Playwright keeps a loop running in this one."""
    ready: Queue[tuple[Served, Callable[[], object]]] = Queue()

    async def serve() -> None:
        async with serving(files=FILES) as running:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            ready.put((Served(running.url, running.key), lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="api")
    thread.start()
    served, stop = ready.get(timeout=30)
    yield served
    stop()
    thread.join()


@pytest.fixture
def open_session(client: Client) -> Iterator[OpenSession]:
    """Makes sessions that end with the test."""
    with ExitStack() as stack:

        def opened(**fields: object) -> Session:
            session = client.open(**fields)
            stack.callback(session.delete)
            return session

        yield opened


@pytest.fixture
def session(open_session: OpenSession) -> Session:
    return open_session()


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[Visitor]:
    with Visitor(chromium) as visitor:
        yield visitor


@pytest.fixture
def friend(chromium: Browser) -> Iterator[Visitor]:
    """Somebody else, with cookies of their own."""
    with Visitor(chromium) as visitor:
        yield visitor
