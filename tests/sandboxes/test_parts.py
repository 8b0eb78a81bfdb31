"""A run of tests that was killed keeps no addresses from later ones."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.sandboxes.kernel.host import claim_part, other_data_dirs, release_part
from tests.parts import PREFIX, abandoned, remove, wait_for_part
from tests.waiting import until

pytestmark = pytest.mark.root

CLAIM_AND_DIE = """
import os, subprocess, sys
from pathlib import Path
from buntime.config import Config
from tests.parts import wait_for_part
config = Config(data_dir=Path(sys.argv[1]))
wait_for_part(config)
left = subprocess.Popen(["sleep", "100"], env={"BUNTIME_DATA_DIR": sys.argv[1]}, stdout=subprocess.DEVNULL)
print(left.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # empty for a process that has ended
    except OSError:
        return False


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


def test_a_part_of_a_killed_run_is_free_again(home: Path) -> None:
    data = home / "data"
    dead = subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, data], stdout=subprocess.PIPE, check=False, timeout=60)
    assert dead.returncode == -9
    (found,) = [left for left in abandoned() if left == data]
    remove(found)
    assert not home.exists()
    assert data not in other_data_dirs(Config(data_dir=home / "another"))
    until(lambda: not runs(int(dead.stdout)), "the server of the killed run to end")


def test_a_part_of_a_running_test_is_its_own(home: Path) -> None:
    config = Config(data_dir=home / "data")
    wait_for_part(config)
    assert config.data_dir not in list(abandoned())
    release_part(claim_part(config))
