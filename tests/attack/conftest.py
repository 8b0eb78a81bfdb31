"""Provides one attacked server and one neighbour for all rows."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.acceptance.conftest import fresh_server, pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.attack.attack import Arena, Result, Target
from tests.attack.host_settings import settings
from tests.attack.kernel_memory import charged_bytes, host_bytes
from tests.attack.neighbour import neighbour
from tests.attack.outside_world import outside, resolv_conf
from tests.attack.rows import Row

__all__ = ["pytest_runtest_makereport"]  # a failed test shows its server's log


@pytest.fixture(scope="package")
def settings_before() -> Mapping[str, str]:
    """Returns the host's kernel settings before the server's first start."""
    return settings()


@pytest.fixture(scope="package")
def server(settings_before: Mapping[str, str]) -> Iterator[Server]:
    """Starts the shared server. Tests must not stop it."""
    with resolv_conf() as names, fresh_server(pool_size=6, alone=True) as server:
        server.settings["BUNTIME_HOST"] = "0.0.0.0"  # makes the edge reachable from another address
        server.settings["BUNTIME_RESOLV_CONF"] = str(names)
        server.start()
        yield server


@pytest.fixture(scope="package")
def arena(server: Server) -> Iterator[Arena]:
    def uncharged(attacker: Session) -> int:
        return host_bytes() - charged_bytes(server.config, attacker.id)

    with outside() as place, neighbour(server.new_client("enterprise"), server.new_client("enterprise")) as b:
        target = Target(server.new_client("free"), b.session.client, server.new_client("enterprise"), place, True)
        yield Arena(target, b, uncharged)


@pytest.fixture(scope="package")
def run_row(arena: Arena) -> Callable[[Row], Result]:
    """Returns a row's result. Each row runs once and its result is cached, because a run takes seconds."""
    return cache(arena.run)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks these tests as `alone`, since they compare a busy machine with a quiet one.

    Tests of `scripts/attack` run first: the script makes a network namespace with the same names as `arena` does.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: item.path.name != "test_verdicts.py")
