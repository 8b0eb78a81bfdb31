"""Ports for the servers of tests."""

import random
import subprocess
import sys

import pytest

from tests.ports import FIRST, free_port


class Same(random.Random):
    def sample(self, *_: object, **__: object) -> list[int]:  # type: ignore[override]
        return list(range(FIRST, FIRST + 100))


def test_two_tests_never_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "Random", Same)
    program = "import random; from tests import ports; from tests.unit.test_ports import Same; random.Random = Same;"
    mine = {free_port() for _ in range(3)}
    other = subprocess.run(
        [sys.executable, "-c", f"{program} print(ports.free_port())"], capture_output=True, text=True, check=True
    )
    assert len(mine) == 3
    assert int(other.stdout) not in mine
