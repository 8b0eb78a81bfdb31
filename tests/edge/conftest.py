"""A real nginx with the configuration that the server writes. Needs root, for nginx's workers."""

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from buntime.config import Config
from tests.edge.place import Place, control_plane, edge
from tests.ports import free_port


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="nginx's workers need a user of their own: root"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path, port=free_port())


@pytest.fixture
async def lonely(config: Config) -> AsyncIterator[Place]:
    """An edge whose control plane does not listen."""
    async with edge(config) as place:
        yield place


@pytest.fixture
async def place(lonely: Place) -> AsyncIterator[Place]:
    async with control_plane(lonely):
        yield lonely
