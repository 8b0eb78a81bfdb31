"""Real sandboxes for the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.contracts.test_sandboxes import LocalHost


@pytest.fixture
async def host() -> AsyncIterator[LocalHost]:
    """Its pool has one place, and fills only when a test says so."""
    host = LocalHost()
    try:
        await host.reopen({})
        yield host
    finally:
        await host.close()
