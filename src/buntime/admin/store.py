"""The store as commands use it: beside a running server or a stopped one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from buntime.admin.refusals import CommandRefused
from buntime.config import Config
from buntime.stores import store_file
from buntime.stores.sqlite import database


@contextmanager
def open_store(config: Config) -> Iterator[sqlite3.Connection]:
    """The store in one transaction. A server that runs sees the changes at once.

    Raises CommandRefused, also where no server ever was: a key that no server knows would be of no use.
    """
    try:
        store_file(config).stat()
        connection = database.connect(store_file(config))
    except FileNotFoundError:
        raise CommandRefused(
            f"No server ever ran on {config.data_dir}. Start one with `buntime serve`, or set BUNTIME_DATA_DIR to the "
            "directory of yours."
        ) from None
    except OSError as failure:
        raise CommandRefused(f"The directory {config.data_dir} cannot be read: {failure.strerror}.") from failure
    except database.StoreUnusable as failure:
        raise CommandRefused(str(failure)) from failure
    with closing(connection):
        try:
            with database.transaction(connection):
                yield connection
        except sqlite3.Error as failure:
            raise CommandRefused(f"The store cannot be used at the moment: {failure}.") from failure
