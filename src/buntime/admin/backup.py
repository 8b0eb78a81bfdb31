"""Copies a server's store and master key while the server runs."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from buntime.config import BadSetting, Config
from buntime.stores import store_file

MASTER_KEY = "master.key"


def back_up(config: Config, directory: Path) -> None:
    """Copies the store, as of one moment, and the master key to a new directory. Raises BadSetting."""
    if config.store:
        raise BadSetting(
            "the store is in PostgreSQL: back it up there, for example with pg_dump, and copy the master key."
        )
    store, key = store_file(config), config.master_key_file or config.data_dir / MASTER_KEY
    if not store.exists():
        raise BadSetting(f"{config.data_dir} has no store: no server has run on it.")
    try:
        directory.mkdir(mode=0o700, parents=True)
        _copy_store(store, directory / store.name)
        if key.exists():  # the first start of a server that archives makes it
            _copy_private(key, directory / MASTER_KEY)
        _sync(directory)
    except FileExistsError:
        raise BadSetting(f"{directory} exists already: a backup never replaces another.") from None
    except (OSError, sqlite3.Error) as failed:
        raise BadSetting(f"the backup in {directory} is incomplete: {failed}.") from failed


def _copy_store(store: Path, copy: Path) -> None:
    copy.touch(mode=0o600)
    with (
        closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    _sync(copy)


def _copy_private(file: Path, copy: Path) -> None:
    copy.touch(mode=0o600)
    shutil.copyfile(file, copy)
    _sync(copy)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
