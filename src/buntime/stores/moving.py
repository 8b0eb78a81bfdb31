"""Moves a store from its SQLite file into PostgreSQL: every row in one transaction, or none.

It may be killed at any moment and run again. The transaction leaves a digest of all rows (`buntime_moves`). By it, the
next run knows that the rows are there already, and that only the file was not renamed.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from buntime.stores.belonging import MOVED
from buntime.stores.postgres.connecting import Place, check_blocking, connect_blocking
from buntime.stores.sqlite import database
from buntime.stores.unusable import StoreUnusable

# in an order in which each row finds those that it refers to
TABLES = (
    *("accounts", "keys", "layers", "snapshots", "made_images", "images", "sessions", "preview_tokens", "answers"),
    *("usage_open", "usage_windows", "usage_numbers", "usage_days", "usage_months"),
    *("webhooks", "events", "event_counts", "deliveries"),
)
BOOLEANS: Mapping[str, Sequence[str]] = {
    "sessions": ["archived"],
    "snapshots": ["is_automatic"],
    "answers": ["packed"],
    "webhooks": ["removed"],
}


def move(file: Path, place: Place) -> int:
    """Returns how many rows were moved. The caller keeps servers away from the file. Raises StoreUnusable.

    The tables must be there. Renames the file at the end.
    """
    moved = file.with_name(file.name + MOVED)
    if not file.exists() and moved.exists():
        raise StoreUnusable(f"The store was moved before: {moved}.")
    check_blocking(place)
    with closing(database.connect(file)) as source, connect_blocking(place) as target:
        try:
            rows = _move(source, target, place)
        except psycopg.Error as failure:
            raise StoreUnusable(f"Nothing was moved: {' '.join(str(failure).split())}") from failure
    database.empty_log(file)
    file.rename(moved)
    return rows


def _move(source: sqlite3.Connection, target: psycopg.Connection[DictRow], place: Place) -> int:
    if _one(target, "SELECT count(*) AS hosts FROM hosts WHERE lease_until > clock_timestamp()")["hosts"]:
        raise StoreUnusable(f"A buntime server uses the store {place.shown}. Stop it first.")
    source.execute("BEGIN")  # reads are as of one moment
    digest = _digest(source)
    with target.transaction():
        target.execute("CREATE TABLE IF NOT EXISTS buntime_moves (digest text PRIMARY KEY, rows bigint NOT NULL)")
        known = target.execute("SELECT rows FROM buntime_moves WHERE digest = %s", [digest]).fetchone()
        if known is not None:
            return int(known["rows"])
        for table in (*TABLES, "unnumbered_events"):
            if _count(target, table):
                raise StoreUnusable(f"The store {place.shown} is not empty: it has {table}.")
        total = sum(_copy(source, target, table) for table in TABLES)
        _go_on_counting(source, target)
        target.execute("INSERT INTO buntime_moves (digest, rows) VALUES (%s, %s)", [digest, total])
    return total


def _copy(source: sqlite3.Connection, target: psycopg.Connection[DictRow], table: str) -> int:
    columns, more = _columns(source, table), {}
    if table == "sessions":
        more = {"changed": _one(target, "SELECT pg_current_xact_id()::text AS id")["id"]}
    names = sql.SQL(", ").join(map(sql.Identifier, [*columns, *more]))
    rows, booleans = 0, BOOLEANS.get(table, ())
    with target.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy:
        for row in _rows(source, table):
            values = [bool(row[name]) if name in booleans else row[name] for name in columns]
            copy.write_row([*values, *more.values()])
            rows += 1
    if rows != _count(target, table):
        raise StoreUnusable(f"Nothing was moved: of {rows} {table}, not all arrived.")
    return rows


def _go_on_counting(source: sqlite3.Connection, target: psycopg.Connection[DictRow]) -> None:
    """Numbers of events and the order of snapshots go on after the last ones that were given."""
    last = source.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'").fetchone()[0]
    arrival = source.execute("SELECT coalesce(max(rowid), 0) FROM snapshots").fetchone()[0]
    for table, column, number in (("events", "seq", last), ("snapshots", "arrival", arrival)):
        if number:
            target.execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s)", [table, column, number])


def _columns(source: sqlite3.Connection, table: str) -> list[str]:
    found = [row["name"] for row in source.execute(f"PRAGMA table_info({table})")]
    return [*found, "arrival"] if table == "snapshots" else found


def _rows(source: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row]:
    arrival = ", rowid AS arrival" if table == "snapshots" else ""
    yield from source.execute(f"SELECT *{arrival} FROM {table}")


def _digest(source: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    for table in TABLES:
        for row in _rows(source, table):
            digest.update(repr((table, *row)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _count(target: psycopg.Connection[DictRow], table: str) -> int:
    found = target.execute(sql.SQL("SELECT count(*) AS rows FROM {}").format(sql.Identifier(table))).fetchone()
    assert found is not None
    return int(found["rows"])


def _one(target: psycopg.Connection[DictRow], statement: str, values: Sequence[object] = ()) -> DictRow:
    found = target.execute(statement.encode(), values).fetchone()
    assert found is not None
    return found
