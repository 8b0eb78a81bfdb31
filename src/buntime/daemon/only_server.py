"""One process at a time for each data directory."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from buntime.config import BadSetting, Config


@contextmanager
def only_server(config: Config) -> Iterator[None]:
    """No other process uses the data directory within the block. Makes the directory. Raises BadSetting."""
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_dir.mkdir(mode=0o700, exist_ok=True)
    with (config.data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSetting(
                f"another server uses {config.data_dir}: stop it first, or choose another BUNTIME_DATA_DIR."
            ) from None
        yield
