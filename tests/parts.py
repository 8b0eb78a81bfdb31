"""Claims a part of this host's addresses. There are few parts, so tests that run side by side wait for a free one.

A run of tests that was killed frees no part. The next test that waits for one removes what such a run has left.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, Config
from buntime.sandboxes.kernel.host import NoPart, claim_part

BUNTIME = Path(sys.executable).with_name("buntime")
PREFIX = "buntime-test-"  # of the directory around a test's data directory
PATIENCE = 300.0  # seconds; a guard against a hang

_held: dict[Path, int] = {}  # while this process lives, nobody else can lock these files


def wait_for_part(config: Config) -> None:
    """Holds a data directory, and claims a part for it. The purge frees the part."""
    hold(config.data_dir)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            claim_part(config)
            return
        except NoPart:
            if time.monotonic() > deadline:
                raise
            for data_dir in abandoned():
                remove(data_dir)
            time.sleep(0.1)


def hold(data_dir: Path) -> None:
    """Makes a data directory, and marks it as in use while this process lives. It is alone in its parent."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    for gone in [held for held in _held if not held.exists()]:
        os.close(_held.pop(gone))
    if data_dir not in _held:
        mark = _held[data_dir] = os.open(_mark(data_dir), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(mark, fcntl.LOCK_EX)


def _mark(data_dir: Path) -> Path:
    return data_dir.with_name("held")


def abandoned() -> Iterator[Path]:
    """Yields data directories of tests that have a part and whose process has ended. Each stays locked meanwhile."""
    for claim in SHARED_RUN_DIR.glob("part-*.json"):
        with suppress(OSError, ValueError, KeyError):
            data_dir = Path(json.loads(claim.read_text())["data_dir"])
            if not data_dir.parent.name.startswith(PREFIX):
                continue
            with _mark(data_dir).open("r+") as mark:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if data_dir.exists():
                    yield data_dir


def remove(data_dir: Path) -> None:
    """Kills the server of a data directory, and removes all that it has on this host."""
    variable = f"BUNTIME_DATA_DIR={data_dir}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
    images = os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images")
    purge = subprocess.run(
        [BUNTIME, "purge", "--yes"],
        env={**ours, "BUNTIME_DATA_DIR": str(data_dir), "BUNTIME_IMAGES_DIR": images},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert purge.returncode == 0, f"what a killed run of tests left could not be removed: {purge.stderr}"
    shutil.rmtree(data_dir.parent)
