"""Runs a real nginx with the server's configuration. Needs root, since nginx's workers run as another user."""

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import pytest

from buntime.config import Config
from tests.edge.rig import Rig, control_plane, edge
from tests.ports import free_port


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root, since nginx's workers run as another user"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path, port=free_port())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def edge_alone(config: Config) -> AsyncIterator[Rig]:
    """An edge whose control plane does not listen."""
    async with edge(config) as rig:
        yield rig


@pytest.fixture
async def rig(edge_alone: Rig) -> AsyncIterator[Rig]:
    async with control_plane(edge_alone):
        yield edge_alone
