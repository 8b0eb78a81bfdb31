"""Starts a server on a free port for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.app.serving import Api, serving


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running
