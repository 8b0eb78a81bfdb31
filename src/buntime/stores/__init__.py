"""Implements `ports.Store`."""

from pathlib import Path

from buntime.config import Config


def store_file(config: Config) -> Path:
    """The file in which the server and the command line keep accounts, keys, sessions and answers."""
    return config.data_dir / "buntime.db"
