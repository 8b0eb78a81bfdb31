from collections.abc import Iterator

import pytest

from buntime.fleet.budget import BUDGET
from buntime.fleet.members import Description, Member
from buntime.fleet.postgres.members import PostgresMembers
from tests.contracts.postgres import Server
from tests.fleet.conftest import Pool
from tests.fleet.history.takeovers import Execute, note_takeovers, noted

pytestmark = pytest.mark.postgres

AT = 1767225600.0  # when the clock of these tests begins


@pytest.fixture
def execute(database: Server, clocked: Pool) -> Iterator[Execute]:
    """By another connection, as the checker does. Other tests use the same database."""
    yield lambda statement: database.execute(statement, "fleet")
    database.execute("DROP SCHEMA checker CASCADE", "fleet")


async def test_the_database_notes_who_is_taken_over_and_what_was_left_of_the_lease(
    clocked: Pool, execute: Execute
) -> None:
    members = PostgresMembers(clocked)

    async def seen(host: str) -> Member:
        return next(each for each in await members.list() if each.id == host)

    async def change(statement: str) -> None:
        async with clocked.connection() as connection:
            await connection.execute(statement.encode())

    note_takeovers(execute)
    note_takeovers(execute)
    for host in ("early", "leaves", "lost"):
        joined = await members.join(host, Description(f"{host}:7000", "1"))
        if host == "leaves":
            await members.leave(joined)
    await change("UPDATE clock SET at = at + interval '3 seconds'")
    await change("UPDATE hosts SET taken_over = true, lease_until = clock_timestamp() WHERE id = 'early'")
    await change(f"UPDATE clock SET at = at + interval '{BUDGET.lease} seconds'")
    me = await members.join("me", Description("me:7000", "1"))
    assert await members.take_over(me, await seen("lost"))
    takeovers = [(each.host, each.at, each.lease_left) for each in noted(execute, {"early": "f1"})]
    assert takeovers == [("f1", AT + 3, BUDGET.lease - 3), ("lost", AT + 3 + BUDGET.lease, -3.0)]
