"""Two versions of this program on one database: which migrations old hosts can live with, and what others wait for."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from buntime.fleet.members import Description, OutOfDate
from buntime.fleet.postgres.members import PostgresMembers
from buntime.stores.postgres import migrations
from buntime.stores.postgres.migrations import Step
from buntime.stores.unusable import StoreUnusable
from tests.contracts.postgres import LOCAL, Server, emptied, opened_as

Pool = AsyncConnectionPool[AsyncConnection[Any]]

ADDS = re.compile(
    r"CREATE TABLE |CREATE INDEX |CREATE FUNCTION |INSERT INTO |ALTER TABLE \w+ ADD COLUMN ", re.IGNORECASE
)
TAKES = re.compile(r"\b(DROP|RENAME|ALTER COLUMN|ADD CONSTRAINT)\b", re.IGNORECASE)
COLUMN = re.compile(r"ADD COLUMN [^,]*(?:\([^)]*\)[^,]*)*", re.IGNORECASE)
NEXT = max(migrations.steps()) + 1
HERE = Description("10.0.0.1:8443", "1")


def refused_by_old_hosts(statements: str) -> list[str]:
    """The statements that do more than add, by their words."""
    bare = re.sub(r"--[^\n]*", "", re.sub(r"\$\$.*?\$\$", "", statements, flags=re.DOTALL))
    each = (" ".join(one.split()) for one in bare.split(";"))
    return [one for one in each if one and not _adds(one)]


def _adds(statement: str) -> bool:
    columns = COLUMN.findall(statement)
    return bool(ADDS.match(statement)) and not TAKES.search(statement) and all(map(_is_optional, columns))


def _is_optional(column: str) -> bool:
    return "NOT NULL" not in column.upper() or "DEFAULT" in column.upper()


@pytest.mark.parametrize(
    ("statements", "adds"),
    [
        ("ALTER TABLE sessions ADD COLUMN a text, ADD COLUMN b text NOT NULL DEFAULT '';", True),
        ("CREATE TABLE t (a text NOT NULL); CREATE INDEX i ON t (a);", True),
        ("ALTER TABLE sessions ADD COLUMN a text NOT NULL;", False),
        ("ALTER TABLE sessions DROP COLUMN a;", False),
        ("ALTER TABLE sessions ADD COLUMN a text, DROP COLUMN b;", False),
        ("ALTER TABLE sessions RENAME a TO b;", False),
        ("DROP TABLE t;", False),
        ("CREATE UNIQUE INDEX i ON sessions (name);", False),
    ],
)
def test_what_old_hosts_can_live_with_is_told_by_its_words(statements: str, adds: bool) -> None:
    assert (refused_by_old_hosts(statements) == []) == adds


def test_a_migration_adds_or_needs_servers_that_know_it() -> None:
    for number, step in migrations.steps().items():
        assert step.needs <= number
        if step.needs < number:
            assert refused_by_old_hosts(step.statements) == [], number


@pytest.fixture
async def pool(postgres_server: Server) -> AsyncIterator[Pool]:
    """Of a database that a test migrates."""
    url = postgres_server.create("upgraded")
    await emptied(url)
    postgres_server.execute("DELETE FROM hosts", "upgraded")
    async with AsyncConnectionPool(url, min_size=1, open=False) as pool:
        yield pool
    postgres_server.execute("DROP DATABASE upgraded WITH (FORCE)")


def newer(patch: pytest.MonkeyPatch, needs: int) -> None:
    """Another start is of a version with one migration more."""
    known = {**migrations.steps(), NEXT: Step("CREATE TABLE of_tomorrow (a text);", needs)}

    def steps() -> Mapping[int, Step]:
        return known

    patch.setattr(migrations, "steps", steps)


@pytest.mark.postgres
async def test_a_host_goes_on_while_a_newer_version_adds_to_its_tables(
    postgres_server: Server, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = PostgresMembers(pool, migrations.newest())
    me = await old.join("a", HERE)
    newer(monkeypatch, needs=2)
    await (await opened_as(LOCAL, postgres_server.url("upgraded"))).close()
    await old.renew(me, {})
    await old.join("a", HERE)


@pytest.mark.postgres
@pytest.mark.parametrize("known", [None, NEXT - 1])
async def test_a_migration_waits_until_no_host_runs_that_cannot_live_with_it(
    postgres_server: Server, pool: Pool, monkeypatch: pytest.MonkeyPatch, known: int | None
) -> None:
    old = PostgresMembers(pool, known)
    me = await old.join("hst_old", HERE)
    await old.renew(me, {})
    newer(monkeypatch, needs=NEXT)
    url = postgres_server.url("upgraded")
    with pytest.raises(StoreUnusable, match="hst_old"):
        await opened_as(LOCAL, url)
    assert postgres_server.execute("SELECT to_regclass('of_tomorrow')", "upgraded") == [(None,)]
    await PostgresMembers(pool, NEXT).join("hst_new", Description("10.0.0.2:8443", "2"))
    await old.leave(me)
    await (await opened_as(LOCAL, url)).close()
    if known is not None:
        with pytest.raises(OutOfDate):
            await old.join("hst_old", HERE)
        hosts = postgres_server.execute("SELECT id FROM hosts WHERE NOT taken_over", "upgraded")
        assert hosts == [("hst_new",)]
