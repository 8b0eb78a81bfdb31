import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from buntime.errors import Unavailable
from buntime.stores.sqlite.writer import Outcome, Work, Writer


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", autocommit=True, check_same_thread=False)
    connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY)")
    return connection


@pytest.fixture
async def writer(connection: sqlite3.Connection) -> AsyncIterator[Writer]:
    writer = Writer(connection)
    yield writer
    await writer.close()


def adding(name: str) -> Work:
    return lambda connection: connection.execute("INSERT INTO things VALUES (?)", (name,)).rowcount


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM things ORDER BY name")]


async def outcomes(writer: Writer, *works: Work) -> list[Outcome]:
    """Returns the outcomes in the order in which they were reported."""
    told: list[Outcome] = []
    for work in works:
        writer.submit(work, told.append)
    ended = asyncio.Event()
    writer.submit(lambda _: None, lambda _: ended.set())
    await ended.wait()
    return told


async def test_changes_that_queue_behind_a_commit_share_the_next(
    writer: Writer, connection: sqlite3.Connection
) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    go = threading.Event()
    works = [adding(f"thing {n}") for n in range(100)]
    writer.submit(lambda _: go.wait(), lambda _: None)
    waiting = asyncio.create_task(outcomes(writer, *works))
    await asyncio.sleep(0)
    go.set()
    assert await waiting == [Outcome(1)] * 100
    connection.set_trace_callback(None)
    assert statements.count("COMMIT") <= 2


async def test_a_change_that_fails_does_not_undo_its_neighbours(writer: Writer, connection: sqlite3.Connection) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half')")
        raise LookupError("stopped in the middle")

    first, failed, last = await outcomes(writer, adding("a"), half, adding("b"))
    assert (first, last) == (Outcome(1), Outcome(1))
    assert isinstance(failed.failure, LookupError)
    assert await outcomes(writer, names) == [Outcome(["a", "b"])]


async def test_a_change_sees_the_one_before_it_in_the_same_commit(writer: Writer) -> None:
    assert await outcomes(writer, adding("a"), names) == [Outcome(1), Outcome(["a"])]


async def test_a_full_disk_is_unavailable_and_passes(writer: Writer, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 3")  # SQLite reports the same error as for a full disk
    (full,) = await outcomes(writer, adding("x" * 100_000))
    assert isinstance(full.failure, Unavailable)
    connection.execute("PRAGMA max_page_count = 1000")
    assert await outcomes(writer, adding("small"), names) == [Outcome(1), Outcome(["small"])]


async def test_closing_settles_submitted_changes_and_refuses_more(writer: Writer) -> None:
    told: list[Outcome] = []
    for n in range(300):
        writer.submit(adding(f"thing {n}"), told.append)
    await asyncio.gather(writer.close(), writer.close())
    assert told == [Outcome(1)] * 300
    with pytest.raises(Unavailable):
        writer.submit(adding("late"), told.append)
