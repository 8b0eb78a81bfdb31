"""The implementation of `ports.Store`."""

from pathlib import Path

from buntime.config import Config


def store_file(config: Config) -> Path:
    """The file with accounts, keys, sessions and answers. The server and the command line both use it."""
    return config.data_dir / "buntime.db"
