"""A host is removed while it, or another one, stores something."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from buntime.fleet.hosts import Removal
from buntime.fleet.members import Description
from buntime.fleet.ownership import Ownership
from buntime.fleet.postgres.commands import FleetCommands
from buntime.fleet.postgres.ownership import report, require_member
from buntime.session import State
from tests.fleet.conftest import Pool
from tests.fleet.test_ownership_sql import AWAKE, LATER, Fleet

pytestmark = pytest.mark.postgres


@pytest.fixture
def fleet(clocked: Pool) -> Fleet:
    return Fleet(clocked)


def remove(fleet: Fleet, host: str) -> Removal:
    """As a command does."""
    connected: psycopg.Connection[DictRow] = psycopg.Connection.connect(str(fleet.pool.conninfo), row_factory=dict_row)
    with connected as connection:
        return FleetCommands(connection).remove(host, gives_up=False)


async def waits(task: asyncio.Task[Any]) -> None:
    done, _ = await asyncio.wait({task}, timeout=LATER)
    assert not done


async def test_a_removal_waits_for_what_the_host_stores_and_then_sees_it(fleet: Fleet) -> None:
    a = await fleet.join("a")
    async with fleet.pool.connection() as storing:
        await require_member(storing, a)
        await fleet.end_leases()
        removing = asyncio.create_task(asyncio.to_thread(remove, fleet, "a"))
        await waits(removing)
        await fleet.add("ses_1", state=AWAKE, archived=False)
    assert await removing is Removal.HAS_SESSIONS
    assert [member.id for member in await fleet.members.list()] == ["a"]


async def test_a_host_that_joins_while_it_is_removed_is_a_new_member(fleet: Fleet) -> None:
    before = await fleet.join("a")
    await fleet.end_leases()
    async with fleet.pool.connection() as connection:
        await connection.execute("SELECT FROM hosts WHERE id = 'a' FOR UPDATE")
        joining = asyncio.create_task(fleet.members.join("a", Description("a:7000", "1"), after=before.incarnation))
        await waits(joining)
        await connection.execute("DELETE FROM hosts WHERE id = 'a'")
    assert (await joining).incarnation == before.incarnation + 1
    assert [member.id for member in await fleet.members.list()] == ["a"]


async def test_a_removed_host_that_comes_back_finds_out_what_it_has_lost(fleet: Fleet) -> None:
    await fleet.join("a")
    await fleet.add("ses_1")
    await fleet.add("ses_2")
    await fleet.end_leases()
    assert await asyncio.to_thread(remove, fleet, "a") is Removal.DONE
    assert await fleet.claim(await fleet.join("b"), "ses_1") is not None
    a = await fleet.join("a")
    async with fleet.pool.connection() as connection:
        found = {each.session: each for each in await report(connection, a, ["ses_1", "ses_2"])}
    assert (found["ses_1"].host, found["ses_1"].epoch) == ("b", 2)
    assert found["ses_2"].host is None, "it is the first's who asks"
    assert isinstance(found["ses_2"], Ownership)
    assert found["ses_2"].state is State.DEEP_SLEEP
