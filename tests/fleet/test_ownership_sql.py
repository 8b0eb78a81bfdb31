"""Who owns a session in PostgreSQL, also when two transactions meet."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import psycopg
import pytest
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from buntime.errors import Unavailable
from buntime.fleet.members import Description, Fenced, Membership
from buntime.fleet.ownership import Left, Ownership, Whereabouts
from buntime.fleet.postgres import members
from buntime.fleet.postgres.members import PostgresMembers
from buntime.fleet.postgres.ownership import (
    SQL,
    adopt,
    claim,
    left_behind,
    look,
    report,
    require_member,
    strays,
    take,
    take_duty,
)
from buntime.session import SavedVolume, State
from buntime.stores.rows.sessions import session_row
from tests.contracts import examples
from tests.fleet.conftest import Pool
from tests.waiting import PATIENCE

pytestmark = pytest.mark.postgres

ASLEEP, AWAKE = "deep-sleep", "active"
LATER = 0.3  # seconds, in which a call that does not wait would be done


class Fleet:
    """Two hosts: `a` has the sessions, `b` is well."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.members = pool, PostgresMembers(pool)

    async def join(self, host: str) -> Membership:
        return await self.members.join(host, Description(f"{host}:7000", "1"))

    async def add(
        self,
        session: str,
        host: str = "a",
        state: str = ASLEEP,
        archived: bool = True,
        saved: SavedVolume | None = None,
    ) -> None:
        async with self.pool.connection() as connection:
            made = replace(examples.session(session, state=State(state)), host=host, archived=archived, saved=saved)
            row = session_row(made)
            values = ", ".join(f"%({name})s" for name in row)
            added = f"INSERT INTO sessions ({', '.join(row)}, changed) VALUES ({values}, pg_current_xact_id())"
            await connection.execute(added.encode(), row)

    async def claim(self, me: Membership, session: str) -> int | None:
        async with self.pool.connection() as connection:
            row = await claim(connection, me, session, f"vol_{me.host}")
            return None if row is None else int(row["epoch"])

    async def take(self, me: Membership, session: str) -> int | None:
        async with self.pool.connection() as connection:
            row = await take(connection, me, session, f"vol_{me.host}")
            return None if row is None else int(row["epoch"])

    async def end_leases(self) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE clock SET at = at + interval '10 seconds'")

    async def lose_a(self) -> Membership:
        """Returns the membership of `b`, which has taken over from `a`."""
        await self.join("a")
        await self.end_leases()
        me = await self.join("b")
        assert await self.members.take_over(me, (await self.members.list())[0])
        return me


@pytest.fixture
def fleet(clocked: Pool) -> Fleet:
    return Fleet(clocked)


async def test_a_sleeping_session_of_nobody_is_claimed_once(fleet: Fleet) -> None:
    a, b = await fleet.join("a"), await fleet.join("b")
    await fleet.add("ses_1", host="")
    assert await fleet.claim(a, "ses_1") == 2
    assert await fleet.claim(b, "ses_1") is None
    assert await fleet.claim(a, "ses_1") == 3, "a host may claim what it owns: the epoch tells its claims apart"


async def test_a_session_of_a_host_that_is_well_is_not_claimed(fleet: Fleet) -> None:
    await fleet.join("a")
    me = await fleet.join("b")
    await fleet.add("ses_1")
    await fleet.end_leases()  # it is lost only when somebody has taken over
    me = await fleet.join("b")
    assert await fleet.claim(me, "ses_1") is None


@pytest.mark.parametrize(("state", "archived"), [(AWAKE, True), ("idle", True), (ASLEEP, False), ("deleting", True)])
async def test_a_session_with_newer_files_on_its_lost_host_is_not_claimed(
    fleet: Fleet, state: str, archived: bool
) -> None:
    me = await fleet.lose_a()
    await fleet.add("ses_1", state=state, archived=archived)
    await fleet.add("ses_2")
    assert await fleet.claim(me, "ses_1") is None
    assert await fleet.claim(me, "ses_2") == 2


async def test_a_session_of_a_host_without_a_row_is_not_claimed(fleet: Fleet) -> None:
    me = await fleet.join("b")
    await fleet.add("ses_1", host="unknown")
    assert await fleet.claim(me, "ses_1") is None


async def test_a_host_whose_lease_is_over_claims_nothing(fleet: Fleet) -> None:
    me = await fleet.join("b")
    await fleet.add("ses_1", host="")
    await fleet.end_leases()
    with pytest.raises(Fenced):
        await fleet.claim(me, "ses_1")


async def test_a_volume_that_was_lost_may_have_more_than_the_checkpoint_if_it_is_back(fleet: Fleet) -> None:
    b = await fleet.lose_a()
    checkpoint = SavedVolume("ses_2/1705660200-1-0123456789ab", 1, examples.NOW, is_checkpoint=True)
    await fleet.add("ses_1", saved=replace(checkpoint, is_checkpoint=False))
    await fleet.add("ses_2", saved=checkpoint)
    assert [await fleet.claim(b, session) for session in ("ses_1", "ses_2")] == [2, 2]
    async with fleet.pool.connection() as connection:
        assert {left.session: left.changed for left in await left_behind(connection, "a")} == {
            "ses_1": False,
            "ses_2": True,
        }


async def test_two_hosts_that_claim_at_once_get_one_session(fleet: Fleet) -> None:
    b = await fleet.lose_a()
    c = await fleet.join("c")
    await fleet.add("ses_1")
    async with fleet.pool.connection() as first:
        assert await claim(first, b, "ses_1", "vol_b") is not None
        second = asyncio.create_task(fleet.claim(c, "ses_1"))
        await _waits(second)
    assert await second is None


async def test_a_host_that_joins_again_waits_for_claims_of_what_it_had(fleet: Fleet) -> None:
    b = await fleet.lose_a()
    await fleet.add("ses_1")
    async with fleet.pool.connection() as claiming:
        assert await claim(claiming, b, "ses_1", "vol_b") is not None
        joining = asyncio.create_task(fleet.join("a"))
        await _waits(joining)
    a = await joining
    async with fleet.pool.connection() as connection:
        assert await report(connection, a, ["ses_1"]) == [Ownership("ses_1", "b", 2, State.DEEP_SLEEP, "vol_b")]


async def test_what_a_host_had_is_its_own_from_the_moment_it_joins_again(fleet: Fleet) -> None:
    b = await fleet.lose_a()
    await fleet.add("ses_1")
    async with fleet.pool.connection() as connection:
        await connection.execute("SELECT FROM hosts WHERE id = 'a' FOR UPDATE")  # as a join does
        claiming = asyncio.create_task(fleet.claim(b, "ses_1"))
        await _waits(claiming)
        await connection.execute("UPDATE hosts SET taken_over = false WHERE id = 'a'")
    assert await claiming is None


async def test_a_host_is_not_taken_over_in_the_middle_of_what_it_stores(fleet: Fleet) -> None:
    a = await fleet.join("a")
    async with fleet.pool.connection() as storing:
        await require_member(storing, a)
        await fleet.end_leases()
        b = await fleet.join("b")
        taking = asyncio.create_task(fleet.members.take_over(b, (await fleet.members.list())[0]))
        await _waits(taking)
    assert await taking
    async with fleet.pool.connection() as connection:
        with pytest.raises(Fenced):
            await require_member(connection, a)


async def test_a_host_that_is_lost_in_the_middle_of_a_transaction_is_taken_over(fleet: Fleet) -> None:
    a = await fleet.join("a")
    lost = await fleet.pool.getconn()
    await require_member(lost, a)
    await fleet.end_leases()
    b = await fleet.join("b")
    assert await fleet.members.take_over(b, (await fleet.members.list())[0])
    assert lost.pgconn.socket, "and never said a word"
    await lost.close()
    await fleet.pool.putconn(lost)


async def test_a_renewal_does_not_wait_for_what_the_host_stores(fleet: Fleet) -> None:
    a = await fleet.join("a")
    async with fleet.pool.connection() as storing:
        await require_member(storing, a)
        await fleet.members.renew(a, {})


async def test_two_hosts_take_over_a_third_at_once_and_one_does(fleet: Fleet) -> None:
    await fleet.join("a")
    await fleet.end_leases()
    b, c = await fleet.join("b"), await fleet.join("c")
    seen = (await fleet.members.list())[0]
    took = await asyncio.gather(fleet.members.take_over(b, seen), fleet.members.take_over(c, seen))
    assert sorted(took) == [False, True]


async def test_a_report_shows_what_moved_and_what_should_be_awake_here(fleet: Fleet) -> None:
    b = await fleet.lose_a()
    await fleet.add("ses_moved")
    await fleet.add("ses_kept")
    await fleet.add("ses_missing", state=AWAKE)
    await fleet.add("ses_asleep_elsewhere", host="b")
    await fleet.claim(b, "ses_moved")
    a = await fleet.join("a")
    async with fleet.pool.connection() as connection:
        rows = await report(connection, a, ["ses_moved", "ses_kept", "ses_gone"])
    assert {row.session: (row.host, row.epoch) for row in rows} == {
        "ses_moved": ("b", 2),
        "ses_kept": ("a", 1),
        "ses_missing": ("a", 1),
    }


async def test_a_look_tells_where_a_session_is(fleet: Fleet) -> None:
    await fleet.lose_a()
    await fleet.add("ses_1", state=AWAKE, archived=False)
    await fleet.add("ses_2", host="")
    async with fleet.pool.connection() as connection:
        found = await look(connection, "ses_1")
        assert found == Whereabouts("a", 1, "a:7000", State.ACTIVE, archived=False, taken_over=True)
        found = await look(connection, "ses_2")
        assert found == Whereabouts(None, 1, None, State.DEEP_SLEEP, archived=True, taken_over=False)
        assert await look(connection, "ses_3") is None


async def test_what_a_lost_host_has_of_a_session_that_moved_is_noted(fleet: Fleet) -> None:
    me = await fleet.lose_a()
    await fleet.add("ses_asleep")
    await fleet.add("ses_awake", state=AWAKE, archived=False)
    assert await fleet.claim(me, "ses_asleep") == 2
    assert await fleet.take(me, "ses_awake") == 2
    async with fleet.pool.connection() as connection:
        asleep, awake = await left_behind(connection, "a")
        assert await left_behind(connection, "b") == []
    assert asleep == Left("vol_ses_asleep", "ses_asleep", "acc_one", "img", "default", 1024, changed=False)
    assert (awake.volume, awake.changed) == ("vol_ses_awake", True)


async def test_only_what_a_lost_host_had_is_taken(fleet: Fleet) -> None:
    a, b = await fleet.join("a"), await fleet.join("b")
    await fleet.add("ses_1", state=AWAKE)
    assert await fleet.take(b, "ses_1") is None
    assert await fleet.take(a, "ses_1") is None


async def test_sessions_of_lost_hosts_that_must_end_are_found(fleet: Fleet) -> None:
    await fleet.lose_a()
    await fleet.add("ses_awake", state=AWAKE)
    await fleet.add("ses_deleting", state="deleting")
    await fleet.add("ses_nobody", host="")
    await fleet.add("ses_of_b", host="b")
    async with fleet.pool.connection() as connection:
        assert await strays(connection, examples.NOW, 9) == ["ses_deleting"]
        assert await strays(connection, examples.NOW + 300, 9) == ["ses_awake", "ses_deleting", "ses_nobody"]


async def test_sessions_of_deleted_accounts_end_although_they_would_never_expire(fleet: Fleet) -> None:
    await fleet.lose_a()
    for session, host in (("ses_nobody", ""), ("ses_lost", "a"), ("ses_of_b", "b")):
        await fleet.add(session, host=host)
    async with fleet.pool.connection() as connection:
        assert await strays(connection, examples.NOW, 9) == []
        await connection.execute("INSERT INTO accounts VALUES ('acc_one', 'free', 0, 'deleted', '{}')")
        assert await strays(connection, examples.NOW, 9) == ["ses_lost", "ses_nobody"]


async def test_a_host_whose_clock_is_ahead_ends_no_session_of_a_lost_host_early(fleet: Fleet) -> None:
    await fleet.lose_a()
    await fleet.add("ses_awake", state=AWAKE)
    async with fleet.pool.connection() as connection:
        await connection.execute("UPDATE sessions SET expires_at = EXTRACT(EPOCH FROM clock_timestamp()) + 3600")
        assert await strays(connection, 1 << 40, 9) == []


async def test_a_look_for_sessions_that_must_end_reads_no_others(fleet: Fleet) -> None:
    asked = {"now": examples.NOW, "most": 9}
    async with fleet.pool.connection() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")  # few rows would be read one after another
        found = await connection.execute(b"EXPLAIN " + SQL["strays"], asked)
        plan = "\n".join(row[0] for row in await found.fetchall())
    assert "sessions_deleting" in plan, plan
    assert "sessions_by_end" in plan, plan
    assert "Seq Scan on sessions" not in plan, plan


async def test_one_host_has_the_duty_until_its_lease_is_over(fleet: Fleet) -> None:
    a, b = await fleet.join("a"), await fleet.join("b")
    async with fleet.pool.connection() as connection:
        assert await take_duty(connection, a)
        assert not await take_duty(connection, b)
        assert await take_duty(connection, a)
    await fleet.end_leases()
    b = await fleet.join("b")
    async with fleet.pool.connection() as connection:
        assert await take_duty(connection, b)
    a = await fleet.join("a")
    async with fleet.pool.connection() as connection:
        assert not await take_duty(connection, a)


async def test_what_a_server_had_alone_is_adopted_once(fleet: Fleet) -> None:
    a = await fleet.join("a")
    await fleet.add("ses_1", host="local")
    async with fleet.pool.connection() as connection:
        assert await adopt(connection, a) == 1
        assert await adopt(connection, a) == 0


async def test_what_a_server_had_alone_waits_for_the_host_that_has_its_files(fleet: Fleet) -> None:
    """Another host may have joined before."""
    await fleet.join("a")
    b = await fleet.join("b")
    await fleet.add("ses_1", host="local")
    async with fleet.pool.connection() as connection:
        assert await adopt(connection, b) == 1


async def test_a_take_over_waits_for_no_change_of_the_host_that_makes_it(fleet: Fleet) -> None:
    """A busy host always has some under way."""
    await fleet.join("a")
    await fleet.end_leases()
    b = await fleet.join("b")
    async with fleet.pool.connection() as storing:
        await require_member(storing, b)
        async with asyncio.timeout(PATIENCE):
            assert await fleet.members.take_over(b, (await fleet.members.list())[0])
        await fleet.add("ses_1")
    assert await fleet.claim(b, "ses_1") == 2


async def test_a_host_that_was_stopped_while_it_held_a_lock_finds_out_that_it_may_try_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.join("a")
    await fleet.end_leases()
    b = await fleet.join("b")
    lost = (await fleet.members.list())[0]
    require = members._require

    def stopped(rows: Mapping[str, DictRow], me: Membership) -> None:
        time.sleep(LATER)
        require(rows, me)

    with monkeypatch.context() as patched:
        patched.setattr(members, "IDLE", "50ms")
        patched.setattr(members, "_require", stopped)
        with pytest.raises(Unavailable):
            await fleet.members.take_over(b, lost)
    assert await fleet.members.take_over(b, lost)


async def test_a_database_that_is_away_is_unavailable(fleet: Fleet, tables: str) -> None:
    me = await fleet.join("a")
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(Unavailable):
        await fleet.members.renew(me, {})


async def test_a_database_that_is_no_primary_any_more_is_unavailable(fleet: Fleet, tables: str) -> None:
    me = await fleet.join("a")
    standby = f"{tables}&options=-c%20default_transaction_read_only%3Don"
    async with AsyncConnectionPool(standby, min_size=1, open=False) as pool:
        members = PostgresMembers(pool)
        with pytest.raises(Unavailable):
            await members.renew(me, {})
        with pytest.raises(Unavailable):
            await members.join("a", Description("a:7000", "1"))


async def _waits(task: asyncio.Task[object]) -> None:
    """Fails if the task does not wait for a lock."""
    done, _ = await asyncio.wait({task}, timeout=LATER)
    assert not done
