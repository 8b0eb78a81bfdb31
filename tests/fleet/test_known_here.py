"""What a host knows without asking its database: the sessions that it owns, as their rows are."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from buntime.account import AccountStatus
from buntime.admin.plan_settings import plans_of
from buntime.caller import Caller
from buntime.config import Config
from buntime.errors import CommitUnknown, NotOwner, SessionLimitExceeded, StaleSession
from buntime.fleet.postgres.members import PostgresMembers
from buntime.operations.entrance import Entrance, noting_entries
from buntime.ports import AnotherHost
from buntime.session import Session, State
from buntime.stores.postgres import known_keys
from buntime.stores.postgres import store as stores
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.known_keys import KnownKeys
from buntime.stores.postgres.store import PostgresStore
from buntime.stores.postgres.transactions import Transactions, Work
from buntime.stores.rows.sessions import session_of
from buntime.testing.sandboxes import FakeSandboxes
from buntime.usage import Moment, Reading
from tests.contracts import examples
from tests.contracts.examples import NOW
from tests.contracts.test_postgres_store import happened
from tests.fleet.test_owners import Host
from tests.waiting import eventually

pytestmark = pytest.mark.postgres

READING = Reading(Moment(NOW * 1000, "boot", NOW * 1000))


@pytest.fixture
async def hosts(tables: str) -> AsyncIterator[tuple[Host, Host]]:
    place = place_of(tables)
    async with AsyncConnectionPool(place.conninfo, min_size=1, open=False) as pool:
        found = Host("a", PostgresMembers(pool)), Host("b", PostgresMembers(pool))
        for host in found:
            await host.join()
            host.store = await PostgresStore.open(place, host.name, host.membership)
        yield found
        for host in found:
            await host.store.close()


@contextmanager
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The statements that stores send within the block."""
    sent, execute = list[bytes](), psycopg.AsyncConnection.execute

    async def noted(connection: Any, query: Any, *given: Any, **how: Any) -> Any:
        if "buntime_stored" not in str(query) and "LISTEN" not in str(query):  # which a store sends by itself
            sent.append(query)
        return await execute(connection, query, *given, **how)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncConnection, "execute", noted)
        yield sent


def row(tables: str, session_id: str = "ses_one") -> Session | None:
    """What the database has."""
    with psycopg.connect(tables, row_factory=dict_row) as connection:
        found = connection.execute("SELECT * FROM sessions WHERE id = %s", [session_id]).fetchone()
    return None if found is None else session_of(found)


async def test_what_a_host_knows_of_its_session_is_its_row_after_every_change(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hosts[0].store

    async def known() -> Session:
        with asking(monkeypatch) as asked:
            found = await store.get_session("ses_one")
        assert found is not None
        assert (asked, found) == ([], row(tables))
        return found

    made = replace(examples.session(state=State.ACTIVE), metadata={"a": 1.5, "\0": [None]}, env={"A": "\ud800"})
    await store.add_session(made, None, 1)
    before = await known()
    after = await store.change_session(before, replace(before, state=State.DEEP_SLEEP, archived=True, name="x"))
    assert await known() == after
    await store.touch_session("ses_one", NOW + 50)
    await store._flush()
    assert (await known()).last_active == NOW + 50
    with suppress(StaleSession):
        await store.change_session(before, before)
    assert await store.get_session("ses_one") == row(tables)
    assert await store.change_session(after, replace(after, files=1)) == await known()
    assert await store.release(await known())
    assert await store.get_session("ses_one") == row(tables)
    await store.claim("ses_one", "vol_2")
    assert (await known()).epoch == before.epoch + 1
    await store.remove_session("ses_one")
    assert await store.get_session("ses_one") is None


async def test_another_hosts_session_is_asked_for_and_the_owner_hears_nothing_of_a_refused_change(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(examples.session(), None, 1)
    for _ in range(2):
        with asking(monkeypatch) as asked:
            read = await b.store.get_session("ses_one")
        assert len(asked) == 1
    assert read is not None
    with pytest.raises(NotOwner):
        await b.store.change_session(read, replace(read, files=7))
    with asking(monkeypatch) as asked:
        assert await a.store.get_session("ses_one") == read
    assert asked == []


async def test_a_host_reads_its_row_again_while_it_may_not_act_and_when_it_has_joined_again(
    hosts: tuple[Host, Host], tables: str
) -> None:
    a, _ = hosts
    await a.store.add_session(examples.session(), None, 1)
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("UPDATE sessions SET host = 'b', epoch = 2, files = 7")
    a.me = None
    assert await a.store.get_session("ses_one") == row(tables)
    await a.join()
    assert await a.store.get_session("ses_one") == row(tables)


async def test_a_change_that_may_have_been_made_is_looked_up(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, change = hosts[0].store, Transactions.change
    await store.add_session(examples.session(), None, 1)
    before = await store.get_session("ses_one")
    assert before is not None

    async def cut[T](self: Transactions, work: Work[T]) -> T:
        await change(self, work)
        raise CommitUnknown("")

    with monkeypatch.context() as patched:
        patched.setattr(Transactions, "change", cut)
        with pytest.raises(CommitUnknown):
            await store.change_session(before, replace(before, files=7))
    assert await store.get_session("ses_one") == row(tables)
    with psycopg.connect(tables, autocommit=True) as connection:  # as if it had been made only now
        connection.execute("UPDATE sessions SET files = 8")
    assert await store.get_session("ses_one") == row(tables)


async def test_a_caller_that_leaves_changes_nothing_of_what_is_known(hosts: tuple[Host, Host], tables: str) -> None:
    store = hosts[0].store
    await store.add_session(examples.session(), None, 1)
    before = await store.get_session("ses_one")
    assert before is not None
    for files in range(20):
        current = await store.get_session("ses_one")
        assert current is not None
        leaving = asyncio.create_task(store.change_session(current, replace(current, files=files)))
        await asyncio.sleep(0.0005 * files)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await asyncio.gather(*store._under_way, return_exceptions=True)
        assert await store.get_session("ses_one") == row(tables)


async def test_a_start_reads_all_sessions_some_at_a_time_and_knows_them(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SESSIONS_AT_ONCE", 3)
    a, _ = hosts
    for number in range(6):
        await a.store.add_session(examples.session(f"ses_{number}"), None, 9)
    again = await PostgresStore.open(place_of(tables), "a", a.membership)
    try:
        with asking(monkeypatch) as asked:
            assert [each.id for each in await again.all_sessions()] == [f"ses_{number}" for number in range(6)]
        assert len(asked) == 3
        with asking(monkeypatch) as asked:
            assert await again.get_session("ses_4") == row(tables, "ses_4")
        assert asked == []
    finally:
        await again.close()


async def test_a_key_that_another_host_revokes_stops_at_once_or_else_within_a_second(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    now = [1000.0]
    for host in hosts:
        host.store._keys = KnownKeys(lambda: now[0])
    assert await a.store.find_key("hash 1") is None
    await b.store.add_account(examples.account())
    for number in (1, 2):
        await b.store.add_key(replace(examples.key(), id=f"key_{number}", hash=f"hash {number}"))
    found = await a.store.find_key("hash 1")
    assert found is not None, "a key that was unknown is asked for again"
    with asking(monkeypatch) as asked:
        assert await a.store.find_key("hash 1") == found
    assert asked == []
    assert await b.store.find_key("hash 1") == found
    await b.store.revoke_key("key_1", NOW)
    assert await b.store.find_key("hash 1") is None
    await eventually(lambda: a.store._keys.get("hash 1") is None, "the notification")  # the clock stands still
    assert await a.store.find_key("hash 1") is None
    await a.store._listening.close()
    assert await a.store.find_key("hash 2") is not None
    await b.store.revoke_key("key_2", NOW)
    now[0] += known_keys.SECONDS
    assert await a.store.find_key("hash 2") is None


async def test_the_keys_of_an_account_that_another_host_suspends_stop_at_once(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    a.store._keys = KnownKeys(lambda: 1000.0)
    await b.store.add_account(examples.account())
    await b.store.add_key(replace(examples.key(), hash="hash"))

    async def status() -> AccountStatus:
        found = await a.store.find_key("hash")
        assert found is not None
        return found[1].status

    assert await status() is AccountStatus.ACTIVE
    await b.store.set_account_status(examples.account().id, AccountStatus.SUSPENDED)
    await eventually(lambda: a.store._keys.get("hash") is None, "the notification")
    assert await status() is AccountStatus.SUSPENDED


async def test_an_execute_through_any_host_asks_nothing_once_it_is_known_where_the_session_is(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = hosts
    leases: Any = None  # nothing is woken
    entrances = [Entrance(each.store, FakeSandboxes(), leases, each.owners, lambda: NOW) for each in hosts]
    for host in hosts:
        await host.choices.look()
    await a.store.add_account(examples.account())
    await a.store.add_key(replace(examples.key(), hash="hash"))
    await a.store.add_session(examples.session(), None, 1)

    async def ask(number: int, *, may_guess: bool) -> str:
        """What a host does before an execute. Where it goes then; "": it runs here."""
        found = await hosts[number].store.find_key("hash")
        assert found is not None
        caller = Caller(found[1], found[0], plans_of(Config())["free"])
        with noting_entries(may_guess=may_guess):
            try:
                await entrances[number].own(caller, "ses_one")
            except AnotherHost as elsewhere:
                return elsewhere.peer.id
        return ""

    assert await ask(1, may_guess=True) == "a"
    assert await ask(0, may_guess=False) == ""
    with asking(monkeypatch) as asked:
        assert await ask(1, may_guess=True) == "a"
        assert await ask(0, may_guess=False) == ""
        assert await ask(0, may_guess=True) == ""
    assert asked == []


async def test_a_create_and_a_request_with_a_key_are_statements_of_their_own(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, answer = hosts[0].store, examples.answer()
    with asking(monkeypatch) as asked:
        await store.begin_key(answer.account, answer.key, answer.fingerprint, answer.created_at, repeatable=True)
        await store.add_session(examples.session(), answer, 1, events=(happened("evt_one"),), reading=READING)
    assert len(asked) == 2, "one begins the request, and one makes the session and answers"
    with asking(monkeypatch) as asked:
        await store.begin_key("acc_one", "key_two", "print", 1, repeatable=False)
        await store.add_answer(replace(answer, key="key_two", fingerprint="print"))
    assert len(asked) == 2
    with pytest.raises(SessionLimitExceeded):
        await store.add_session(examples.session("ses_two"), None, 1)


async def test_usage_of_many_sessions_is_one_statement_for_each_table(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = hosts[0].store, [f"ses_{number}" for number in range(9)]
    for place, name in enumerate(names):
        one = examples.session(name, account=f"acc_{place % 2}")
        await store.add_session(one, None, 99, reading=READING)
    later = Reading(Moment(READING.moment.at + 3_600_000, "boot", READING.moment.steady + 3_600_000))
    with asking(monkeypatch) as asked:
        await store.note_usage(dict.fromkeys(names, later))
    assert len(asked) <= 10
    found = await store.list_windows("acc_0", 0, 99)
    assert [(each.session, each.ended_at) for each in found[0]] == [(name, later.moment.at) for name in names[::2]]
    assert found[1] == len(names[::2])
