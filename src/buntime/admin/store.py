"""The store as commands use it: beside a running server or a stopped one."""

from collections.abc import Iterator
from contextlib import contextmanager

from buntime.admin.refusals import CommandRefused
from buntime.config import Config
from buntime.errors import Unavailable
from buntime.stores.command_store import CommandStore
from buntime.stores.opening import command_store
from buntime.stores.unusable import StoreUnusable


@contextmanager
def open_store(config: Config) -> Iterator[CommandStore]:
    """The store in one transaction. A server that runs sees the changes at once.

    Raises CommandRefused, also where no server ever was: a key that no server knows would be of no use.
    """
    try:
        with command_store(config) as store:
            yield store
    except FileNotFoundError:
        raise CommandRefused(
            f"No server ever ran on {config.data_dir}. Start one with `buntime serve`, or set BUNTIME_DATA_DIR to the "
            "directory of yours."
        ) from None
    except OSError as failure:
        raise CommandRefused(f"The directory {config.data_dir} cannot be read: {failure.strerror}.") from failure
    except StoreUnusable as failure:
        raise CommandRefused(str(failure)) from failure
    except Unavailable as failure:
        raise CommandRefused(failure.message) from failure
