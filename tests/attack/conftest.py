"""A server that is attacked, with its neighbour: shared by all rows."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.acceptance.conftest import fresh_server, pytest_runtest_makereport
from tests.acceptance.server import Server
from tests.attack.attack import Field, Result, Target
from tests.attack.host_settings import settings
from tests.attack.kernel_memory import charged, of_host
from tests.attack.neighbour import neighbour
from tests.attack.outside_world import outside
from tests.attack.rows import Row

__all__ = ["pytest_runtest_makereport"]  # a failed test shows what its server said


@pytest.fixture(scope="package")
def settings_before() -> Mapping[str, str]:
    """Of the host's kernel, before the server's first start."""
    return settings()


@pytest.fixture(scope="package")
def server(settings_before: Mapping[str, str]) -> Iterator[Server]:
    """Shared: tests may not stop it."""
    with fresh_server(pool_size=6, alone=True) as server:
        server.settings["BUNTIME_HOST"] = "0.0.0.0"  # another address reaches its edge
        server.start()
        yield server


@pytest.fixture(scope="package")
def field(server: Server) -> Iterator[Field]:
    def uncharged(attacker: Session) -> int:
        return of_host() - charged(server.config, attacker.id)

    with outside() as place, neighbour(server.new_client("enterprise"), server.new_client("enterprise")) as b:
        target = Target(server.new_client("free"), b.session.client, server.new_client("enterprise"), place, True)
        yield Field(target, b, uncharged)


@pytest.fixture(scope="package")
def fought(field: Field) -> Callable[[Row], Result]:
    """What came of a row. Several tests look at one fight, because each takes seconds."""
    return cache(field.fight)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests compare a busy machine with a quiet one.

    Those of `scripts/attack` come first: the script makes an outside world with the same names as `field` does.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: item.path.name != "test_verdicts.py")
