"""What the lab puts into the programs of a host: another clock, and bugs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fleet.lab.hosts import INJECTED
from tests.fleet.lab.injected.fleet_mutants import MUTANTS

HOUR = 3600.0
CLOCKS = "import time; print(time.time(), time.time_ns() / 1e9, time.monotonic())"


def told(program: str, **settings: str) -> str:
    """What a program of a host prints."""
    environment = {**os.environ, **INJECTED, **settings}
    return subprocess.run([sys.executable, "-c", program], env=environment, check=True, stdout=-1, text=True).stdout


def test_a_step_is_of_the_wall_clock_alone(tmp_path: Path) -> None:
    clock = tmp_path / "f1.clock"
    assert abs(float(told(CLOCKS, FLEET_CLOCK=str(clock)).split()[0]) - time.time()) < HOUR / 2
    clock.write_text(f"{HOUR}\n")
    seconds, nanoseconds, monotonic = map(float, told(CLOCKS, FLEET_CLOCK=str(clock)).split())
    assert abs(seconds - time.time() - HOUR) < HOUR / 2
    assert abs(nanoseconds - seconds) < HOUR / 2
    assert abs(monotonic - time.monotonic()) < HOUR / 2


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_each_mutant_finds_the_code_that_it_breaks(name: str) -> None:
    assert told("import buntime.fleet.owners; print('as ever')", FLEET_MUTANT=name) == "as ever\n"
