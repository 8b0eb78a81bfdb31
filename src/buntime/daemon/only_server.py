"""One process at a time for each data directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, BadSetting, Config


@contextmanager
def only_server(config: Config) -> Iterator[None]:
    """No other process uses the data directory within the block. Makes the directory. Raises BadSetting.

    Two locks: one is found under every name of the directory, the other outlives what is in the directory.
    """
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_dir.mkdir(mode=0o700, exist_ok=True)
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    with _locked(config.data_dir / "lock", config), _locked(config.shared_lock, config):
        yield


@contextmanager
def _locked(path: Path, config: Config) -> Iterator[None]:
    while True:
        # for root alone: anyone who can open a lock can hold it, and keep the server from starting
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):  # else a purge removed the file between the two lines before
                yield
                return
        except BlockingIOError:
            raise BadSetting(
                f"another server uses {config.data_dir}: stop it first, or choose another BUNTIME_DATA_DIR."
            ) from None
        finally:
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
