"""Puts events into a server's store, as a command on its host does."""

import time
from contextlib import closing

from buntime.config import Config
from buntime.event import EventType, new_event
from buntime.stores import store_file
from buntime.stores.sqlite import accounts, database
from buntime.stores.sqlite.events import add_events

SESSIONS = 100  # that the events are about; they need not exist


def account_of(config: Config) -> str:
    """The id of the benchmark's account, which is the newest."""
    with closing(database.connect(store_file(config))) as connection:
        return accounts.list_accounts(connection)[-1].id


def add(config: Config, account: str, first: int, end: int) -> None:
    """Adds `session.idle` events with the numbers from `first` to before `end`, each of the next session."""
    now = time.time()
    events = [
        new_event(account, EventType.SESSION_IDLE, now, {"number": number}, session=f"ses_{number % SESSIONS:018}")
        for number in range(first, end)
    ]
    with closing(database.connect(store_file(config))) as connection, database.transaction(connection):
        add_events(connection, events)
