"""Debian's Chromium, and visitors who use it."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.browser.visitor import Visitor

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


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
