"""What only the store in PostgreSQL must do: several writers, lost connections, a database that goes away."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import LiteralString

import psycopg
import pytest
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from buntime.config import Config
from buntime.daemon.tasks import Tasks, cancel_and_wait
from buntime.errors import (
    BuntimeError,
    CommitUnknown,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    MayNotAct,
    NameTaken,
    NotOwner,
    OutcomeUnknown,
    SessionLimitExceeded,
    StaleSession,
    Unavailable,
)
from buntime.event import AccountEvent, EventType, of_new_session
from buntime.fleet.members import Description, Membership
from buntime.fleet.postgres.members import PostgresMembers
from buntime.lifecycle.sealing import Vault
from buntime.operations.entrance import note_begun, noting_entries
from buntime.operations.idempotency import Idempotency
from buntime.session import Session, State
from buntime.stores.opening import with_password
from buntime.stores.postgres import committing, listening, migrations, transactions
from buntime.stores.postgres.connecting import Place, connect, connect_blocking, place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.stores.postgres.transactions import Transaction
from buntime.stores.rows.sessions import session_of
from buntime.stores.unusable import StoreTooNew, StoreUnusable
from buntime.usage import Moment, Reading
from buntime.web.exchange import Reply
from buntime.web.idempotent import KeyedRequest, once
from tests.contracts.cutting import Cut, CuttingProxy
from tests.contracts.examples import NOW, account, answer, key, layer, session, snapshot
from tests.contracts.pgbouncer import pgbouncer
from tests.contracts.postgres import JOINED, LOCAL, Server, emptied, postgres
from tests.ports import free_port
from tests.waiting import PATIENCE, REST

pytestmark = pytest.mark.postgres

LATER = 0.3  # seconds, in which a notification would have come


@pytest.fixture
async def place(postgres_url: str) -> Place:
    await emptied(postgres_url)
    return place_of(postgres_url)


@pytest.fixture
async def stores(place: Place) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two hosts."""
    async with opened(place) as one, opened(place) as two:
        yield one, two


@pytest.fixture
async def proxy(postgres_server: Server) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(postgres_server.port).running() as proxy:
        yield proxy


@pytest.fixture
async def cut_store(place: Place, proxy: CuttingProxy) -> AsyncIterator[PostgresStore]:
    """A store whose connections the proxy can cut."""
    async with opened(place_of(f"postgresql://buntime:secret@127.0.0.1:{proxy.port}/contracts"), joins=False) as store:
        yield store


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that tests may stop. It writes to the disk as it should."""
    with postgres(free_port(), settings=()) as server:
        server.create("own")
        yield server


@asynccontextmanager
async def opened(place: Place, *, joins: bool = True) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)
    if joins:
        with connect_blocking(place) as connection:
            connection.execute(JOINED, [LOCAL.host, LOCAL.incarnation])
    try:
        yield store
    finally:
        await store.close()


async def outcomes(*calls: Awaitable[object]) -> list[object]:
    """What each call returned or raised."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one for one in found]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(REST)


def happened(name: str, owner: str = "acc_one") -> AccountEvent:
    return AccountEvent(name, owner, EventType.EXECUTION_COMPLETED, NOW, "ses_one", {})


def reading(at: int) -> Reading:
    return Reading(Moment(at * 1000, "boot", at * 1000))


# two hosts


async def test_twenty_adds_at_once_from_two_hosts_get_exactly_the_limit(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    adds = [stores[n % 2].add_session(session(f"ses_{n}"), None, 7) for n in range(20)]
    found = await outcomes(*adds)
    assert found.count(None) == 7
    assert found.count(SessionLimitExceeded) == 13
    assert [await store.count_sessions("acc_one") for store in stores] == [7, 7]


async def test_checks_hold_whatever_the_databases_default_isolation_is(postgres_server: Server) -> None:
    place = place_of(postgres_server.create("isolated"))
    postgres_server.execute("ALTER DATABASE isolated SET default_transaction_isolation = 'repeatable read'")
    async with opened(place) as one, opened(place) as two:
        found = await outcomes(*((one, two)[n % 2].add_session(session(f"ses_{n}"), None, 7) for n in range(20)))
        assert (found.count(None), found.count(SessionLimitExceeded)) == (7, 13)
        await _no_layer_in_use_is_condemned((one, two))
        with pgbouncer(postgres_server, "isolated") as url:
            async with opened(place_of(url), joins=False) as pooled:
                for store in (one, pooled):
                    await _no_key_begins_whose_answer_is_being_stored(store, place)


async def _no_key_begins_whose_answer_is_being_stored(store: PostgresStore, place: Place) -> None:
    with connect_blocking(place) as elsewhere:
        elsewhere.execute("INSERT INTO keys_in_use VALUES ('acc_one', 'k', 'told', false, 'hst_b', 1, 0)")
        with elsewhere.transaction():
            elsewhere.execute("DELETE FROM keys_in_use")
            elsewhere.execute("INSERT INTO answers VALUES ('acc_one', 'k', 'told', 200, 0, '', false, '')")
            begun = asyncio.create_task(store.begin_key("acc_one", "k", "told", NOW, repeatable=False))
            await eventually(partial(_has_row, place, "SELECT FROM pg_locks WHERE NOT granted"))
        with pytest.raises(IdempotencyInProgress):
            await begun
        elsewhere.execute("DELETE FROM answers")


async def _has_row(place: Place, question: LiteralString) -> bool:
    async with await connect(place) as connection:
        return await (await connection.execute(question)).fetchone() is not None


async def test_one_of_many_adds_from_two_hosts_gets_the_name(stores: tuple[PostgresStore, PostgresStore]) -> None:
    adds = [stores[n % 2].add_session(session(f"ses_{n}", called="x"), None, 99) for n in range(10)]
    found = await outcomes(*adds)
    assert (found.count(None), found.count(NameTaken)) == (1, 9)


async def test_one_of_many_renames_on_two_hosts_gets_the_name(stores: tuple[PostgresStore, PostgresStore]) -> None:
    old = [session(f"ses_{n}") for n in range(8)]
    for one in old:
        await stores[0].add_session(one, None, 99)
    found = await outcomes(*(stores[n % 2].change_session(one, replace(one, name="x")) for n, one in enumerate(old)))
    assert found.count(NameTaken) == 7


async def test_an_idempotency_key_is_used_once_over_two_hosts(stores: tuple[PostgresStore, PostgresStore]) -> None:
    adds = [stores[n % 2].add_session(session(f"ses_{n}"), answer("k"), 99) for n in range(10)]
    found = await outcomes(*adds)
    assert (found.count(None), found.count(IdempotencyInProgress)) == (1, 9)
    assert await stores[0].count_sessions("acc_one") == 1


async def test_of_many_changes_of_one_version_one_is_made(stores: tuple[PostgresStore, PostgresStore]) -> None:
    old = session()
    await stores[0].add_session(old, None, 1)
    found = await outcomes(*(stores[n % 2].change_session(old, replace(old, files=n)) for n in range(10)))
    assert found.count(StaleSession) == 9


async def test_a_host_sees_what_another_one_has_changed(stores: tuple[PostgresStore, PostgresStore]) -> None:
    one, two = stores
    await one.add_session(session(), None, 1)
    assert [found.id for found in await two._changed_rows()] == ["ses_one"]
    assert await two._changed_rows() == []
    await one.change_session(session(), replace(session(), state=State.IDLE))
    assert [found.state for found in await two._changed_rows()] == [State.IDLE]
    assert await two.count_states() == {state: int(state is State.IDLE) for state in State}


async def test_sessions_of_a_restored_dump_do_not_look_changed_for_ever(place: Place, postgres_server: Server) -> None:
    async with opened(place) as store:
        await store.add_session(session(), None, 1)
    postgres_server.execute("UPDATE sessions SET changed = '999999999999'", "contracts")
    async with opened(place) as store:
        assert [one.id for one in await store._changed_rows()] == ["ses_one"]
        above = "SELECT count(*) FROM sessions WHERE changed > pg_current_xact_id()"
        assert postgres_server.execute(above, "contracts") == [(0,)]


async def test_all_is_read_again_when_numbers_of_transactions_went_back(place: Place) -> None:
    async with opened(place) as store:
        await store.add_session(session(), None, 1)
        await store._changed_rows()
        since, server = store._horizon
        store._horizon, store._seen = (since + 1_000_000, server), {}
        assert [one.id for one in await store._changed_rows()] == ["ses_one"]


async def test_no_change_is_missed_however_late_it_commits(place: Place, postgres_url: str) -> None:
    async with opened(place) as store, await psycopg.AsyncConnection.connect(postgres_url) as slow:
        await store.add_session(session("ses_slow"), None, 9)
        await store._changed_rows()
        await slow.execute("UPDATE sessions SET version = 2, changed = pg_current_xact_id() WHERE id = 'ses_slow'")
        await store.add_session(session("ses_quick"), None, 9)
        assert [one.id for one in await store._changed_rows()] == ["ses_quick"]
        await slow.commit()
        assert [one.id for one in await store._changed_rows()] == ["ses_slow"]
        assert await store._changed_rows() == []


async def test_readers_of_events_never_miss_one_however_late_it_commits(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    written, read, numbers = 200, list[str](), [0]

    async def write(store: PostgresStore, names: Sequence[int]) -> None:
        for name in names:
            await store.add_events([happened(f"evt_{name}")])

    async def follow() -> None:
        while len(read) < written:
            for found in await stores[0].list_events(None, after=numbers[-1], limit=7):
                numbers.append(found.number)
                read.append(found.event.id)

    writers = [write(stores[n % 2], range(n, written, 10)) for n in range(10)]
    async with asyncio.timeout(60):
        await asyncio.gather(follow(), *writers)
    assert sorted(read) == sorted(f"evt_{name}" for name in range(written))
    assert numbers == sorted(set(numbers))


async def test_an_event_that_commits_late_is_numbered_above_those_that_were_read(
    place: Place, postgres_url: str
) -> None:
    async with opened(place) as store, await psycopg.AsyncConnection.connect(postgres_url) as slow:
        await slow.execute(
            "INSERT INTO unnumbered_events (id, account, type, time, data, actor) "
            "VALUES ('evt_slow', 'acc_one', 'execution.completed', 1, '{}', 'server')"
        )
        await store.add_events([happened("evt_quick")])
        first = await store.list_events(None)
        await slow.commit()
        both = await store.list_events(None)
    assert [found.event.id for found in first] == ["evt_quick"]
    assert [found.event.id for found in both] == ["evt_quick", "evt_slow"]
    assert both[0] == first[0]


async def test_windows_of_two_hosts_have_places_without_a_gap(stores: tuple[PostgresStore, PostgresStore]) -> None:
    async def live(store: PostgresStore, name: str) -> None:
        now = session(name)
        await store.add_session(now, None, 99, reading=reading(NOW))
        for turn, state in enumerate((State.IDLE, State.ACTIVE) * 3, start=1):
            now = await store.change_session(now, replace(now, state=state), reading=reading(NOW + turn))

    seen, place = list[str](), 0

    async def follow() -> None:
        nonlocal place
        while len(seen) < 60:
            page, place = await stores[1].list_windows("acc_one", place, 7)
            seen.extend(window.id for window in page)

    async with asyncio.timeout(60):
        await asyncio.gather(follow(), *(live(stores[n % 2], f"ses_{n}") for n in range(10)))
    assert len(set(seen)) == 60
    assert place == 60
    ((_, amounts),) = await stores[0].usage_by_day("acc_one", NOW // 86400, NOW // 86400)
    assert amounts.milliseconds == 60_000


async def test_no_layer_is_condemned_that_a_snapshot_of_another_host_refers_to(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    await stores[0].add_session(session(), None, 1)
    await _no_layer_in_use_is_condemned(stores)


async def _no_layer_in_use_is_condemned(stores: tuple[PostgresStore, PostgresStore]) -> None:
    for turn in range(20):
        kept = layer(f"lay_{turn}", fork="f")
        await stores[0].add_layer(kept)
        await stores[0].end_fork(kept.id)
        taken = snapshot(f"snp_{turn}", layer=kept.id)
        added, _ = await outcomes(stores[0].add_snapshot(taken, None, None, 99), stores[1].condemn_layers(NOW))
        stored = await stores[1].get_layer(kept.id)
        assert stored is not None
        assert stored.is_condemned == (added is not None)


async def test_a_host_hears_at_once_of_what_another_one_stores(stores: tuple[PostgresStore, PostgresStore]) -> None:
    heard = asyncio.Event()
    await asyncio.sleep(listening.GAP_SECONDS)
    stores[1].on_stored(heard.set)
    await stores[0].add_events([happened("evt_one")])
    async with asyncio.timeout(PATIENCE):
        await heard.wait()


async def test_a_host_that_need_not_hear_at_once_costs_the_others_no_notification(
    stores: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, asked = asyncio.Event(), 0

    def unwanted() -> bool:
        nonlocal asked
        asked += 1
        return False

    async def asks_again(times: int) -> None:
        before = asked

        async def has_asked() -> bool:
            return asked >= before + times

        await eventually(has_asked)

    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.05)
    stores[1].listen_while(unwanted)
    await stores[0].add_events([happened("evt_one")])  # ends a longer wait
    await asks_again(2)  # it has stopped listening
    monkeypatch.setattr(listening, "LOOK_SECONDS", PATIENCE)
    await asks_again(1)
    stores[1].on_stored(heard.set)
    await stores[0].add_events([happened("evt_two")])
    await asyncio.sleep(LATER)
    assert not heard.is_set()


async def test_a_host_goes_on_listening_and_telling_after_any_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("BLIND_SECONDS", "CLEAN_SECONDS"):
        monkeypatch.setattr(listening, pause, 0.05)
    failures: list[Exception] = [Unavailable("away"), psycopg.errors.InternalError("broken")] * 2
    async with opened(place) as store:
        ask = store._transactions.all

        async def failing(name: str, /, **values: object) -> list[dict[str, object]]:
            if failures:
                raise failures.pop()
            return await ask(name, **values)

        monkeypatch.setattr(store._transactions, "all", failing)
        listener = listening.Listening(place, store._transactions, lambda: None, lambda: True, lambda: None)

        async def told_all() -> bool:
            listener.stored()
            return not failures

        await eventually(told_all)
        assert not any(loop.done() for loop in listener._loops)
        await listener.close()


async def test_many_noted_events_are_stored_in_order_by_several_commits(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = list[int]()
    send_many = Transaction.send_many

    async def counted(self: Transaction, name: str, /, rows: Sequence[Mapping[str, object]]) -> None:
        commits.append(len(rows))
        await send_many(self, name, rows)

    async with opened(place) as store:
        monkeypatch.setattr(Transaction, "send_many", counted)
        for n in range(1200):
            store.note_events([happened(f"evt_{n}")])
        await store.add_events([happened("evt_last")])  # behind all that was noted before
        assert max(commits) <= committing.NOTE_AT_ONCE
        names = [found.event.id for found in await store.list_events(None, limit=2000)]
    assert names == [*(f"evt_{n}" for n in range(1200)), "evt_last"]


async def test_transactions_that_wait_for_each_other_are_both_made(place: Place) -> None:
    async with opened(place) as store:
        met = asyncio.Barrier(2)
        meetings = 0

        def work(first: str, second: str) -> Callable[[Transaction], Awaitable[None]]:
            async def locking(transaction: Transaction) -> None:
                nonlocal meetings
                await transaction.first("lock_account", account=first)
                if meetings < 2:
                    meetings += 1
                    await met.wait()
                await transaction.first("lock_account", account=second)

            return locking

        await asyncio.gather(
            store._transactions.change(work("acc_a", "acc_b")), store._transactions.change(work("acc_b", "acc_a"))
        )


# lost connections


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT, Cut.SILENCE])
async def test_a_change_is_made_once_although_its_commit_is_cut(
    cut: Cut, cut_store: PostgresStore, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "ANSWER_SECONDS", 0.5)
    for turn in range(3):
        new = session(f"ses_{turn}")
        proxy.armed = cut
        await cut_store.add_session(new, answer(f"k{turn}"), 9, events=(of_new_session(new),))
        old = await cut_store.get_session(new.id)
        assert old == new
        proxy.armed = cut
        changed = await cut_store.change_session(new, replace(new, files=turn))
        assert (changed.version, await cut_store.get_session(new.id)) == (2, changed)
    assert proxy.cuts >= 6
    assert len(await cut_store.list_events(None)) == 3


async def test_a_refusal_stays_a_refusal_although_connections_are_cut(
    cut_store: PostgresStore, proxy: CuttingProxy
) -> None:
    await cut_store.add_session(session(), None, 1)
    proxy.armed = Cut.BEFORE_COMMIT
    with pytest.raises(SessionLimitExceeded):
        await cut_store.add_session(session("ses_two"), None, 1)


async def test_a_commit_whose_outcome_is_not_known_is_unavailable(
    cut_store: PostgresStore, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "OUTCOME_SECONDS", 1.0)
    proxy.armed, proxy.refuses = Cut.AFTER_COMMIT, True
    with pytest.raises(CommitUnknown, match="lost its database while it stored this"):
        await cut_store.add_session(session(), None, 1)
    proxy.come_back()
    await eventually(lambda: has(cut_store, "ses_one"))


async def test_a_read_is_not_awaited_for_longer_than_it_is_tried(
    cut_store: PostgresStore, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "ANSWER_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(transactions, "PATIENCE_SECONDS", 1.0)
    await cut_store.add_session(session(), None, 1)
    proxy.is_silent = True
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await cut_store.get_session("ses_unknown")
    proxy.is_silent = False
    await eventually(lambda: has(cut_store, "ses_one"))


async def has(store: PostgresStore, session_id: str) -> bool:
    """Whether the database has it, and answers."""
    try:
        return any(one.id == session_id for one in await store.account_sessions("acc_one"))
    except Unavailable:
        return False


async def test_what_was_acknowledged_stays_while_connections_are_killed_at_random(
    place: Place, postgres_server: Server
) -> None:
    known: dict[str, Session] = {}
    doubtful = set[str]()
    ended = asyncio.Event()

    async def kill() -> None:
        while not ended.is_set():
            await asyncio.sleep(random.uniform(0.005, 0.05))
            await asyncio.to_thread(
                postgres_server.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = 'contracts' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2",
            )

    async def work(store: PostgresStore, name: str) -> None:
        now = session(name)
        try:
            await store.add_session(now, answer(name), 99, events=(of_new_session(now),))
            known[name] = now
            for files in range(1, 12):
                now = await store.change_session(now, replace(now, files=files), events=(happened(f"{name}_{files}"),))
                known[name] = now
        except Unavailable:
            doubtful.add(name)

    async with opened(place) as one, opened(place) as two:
        killing = asyncio.create_task(kill())
        await asyncio.gather(*(work((one, two)[n % 2], f"ses_{n}") for n in range(20)))
        ended.set()
        await killing
        stored = {found.id: found for found in await one.all_sessions()}
        told = [found.event.id for found in await two.list_events(None, limit=1000)]
    for name, acknowledged in known.items():
        assert stored[name].version >= acknowledged.version
        assert name in doubtful or stored[name] == acknowledged
    changes = sum(found.version for found in stored.values())
    assert len(told) == len(set(told)) == changes


async def test_a_host_that_stalls_in_a_change_holds_up_others_for_seconds_and_no_read(
    place: Place, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "QUEUE_SECONDS", 1.0)
    async with opened(place) as store, await psycopg.AsyncConnection.connect(postgres_url) as stalled:
        await store.add_session(session(), None, 99)
        await stalled.execute("SELECT pg_advisory_xact_lock(hashtextextended('acc_one', 0))")
        adds = [asyncio.create_task(store.add_session(session(f"ses_{n}"), None, 99)) for n in range(40)]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        assert await store.get_session("ses_one") == session()
        assert time.monotonic() - began < 2.0
        assert await outcomes(*adds) == [Unavailable] * 40
        await stalled.rollback()
        await store.add_session(session("ses_two"), None, 99)


async def test_a_transaction_whose_host_has_stalled_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "ANSWER_SECONDS", 600.0)  # the database alone must end it
    async with opened(place) as one, opened(place) as two:
        ended = asyncio.Event()
        entered = asyncio.Event()

        async def stall(transaction: Transaction) -> None:
            await transaction.first("lock_account", account="acc_one")
            entered.set()
            await ended.wait()

        stalling = asyncio.create_task(one._transactions.change(stall))
        await entered.wait()
        await eventually(lambda: can_add(two, session()))
        ended.set()
        await outcomes(stalling)


async def test_a_database_that_stops_is_unavailable_and_comes_back(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "PATIENCE_SECONDS", 1.0)
    heard = asyncio.Event()
    async with opened(place_of(own_server.url("own"))) as store:
        await store.add_session(session(), None, 1)
        await store._changed_rows()
        await asyncio.to_thread(own_server.stop)
        began = time.monotonic()
        for call in (store.get_session("ses_unknown"), store.remove_session("ses_one")):
            with pytest.raises(Unavailable):
                await call
        assert time.monotonic() - began < PATIENCE
        await store.touch_session("ses_one", NOW + 100)
        store.note_events([happened("evt_away")])
        store.on_stored(heard.set)
        await asyncio.to_thread(own_server.start)
        await eventually(lambda: has(store, "ses_one"))
        assert [one.id for one in await store._changed_rows()] == ["ses_one"]  # all, after another start
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
    async with opened(place_of(own_server.url("own"))) as store:
        found = await store.get_session("ses_one")
        assert found is not None
        assert found.last_active == NOW + 100
        assert [one.event.id for one in await store.list_events(None)] == ["evt_away"]


async def test_a_database_that_has_become_read_only_is_unavailable(
    place: Place, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "PATIENCE_SECONDS", 1.0)
    async with opened(place) as store:
        postgres_server.execute("ALTER DATABASE contracts SET default_transaction_read_only = on")
        postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'contracts'")
        with pytest.raises(Unavailable):
            await store.add_session(session(), None, 1)
        postgres_server.execute("ALTER DATABASE contracts RESET default_transaction_read_only")
        await eventually(lambda: can_add(store, session()))


async def can_add(store: PostgresStore, new: Session) -> bool:
    try:
        await store.add_session(new, None, 1)
    except Unavailable:
        return False
    return True


async def test_a_host_goes_on_while_a_newer_one_adds_a_column(place: Place, postgres_server: Server) -> None:
    url = postgres_server.create("migrated")
    async with opened(place_of(url)) as store:
        await store.add_session(session(), None, 1)
        for _ in range(40):  # on each connection
            await asyncio.gather(*(store.get_session("ses_one") for _ in range(8)))
        postgres_server.execute("ALTER TABLE sessions ADD COLUMN later text NOT NULL DEFAULT 'x'", "migrated")
        found = await asyncio.gather(*(store.get_session("ses_one") for _ in range(40)))
        assert found == [session()] * 40
        await store.add_session(session("ses_two"), None, 2)


async def test_what_was_acknowledged_outlives_a_crash_of_the_database(own_server: Server) -> None:
    url = own_server.create("crashed")
    async with opened(place_of(url)) as store:
        await asyncio.gather(*(store.add_session(session(f"ses_{n}"), None, 99) for n in range(20)))
        await asyncio.to_thread(own_server.crash)
        await asyncio.to_thread(own_server.start)
        await eventually(lambda: has(store, "ses_1"))
        assert await store.count_sessions("acc_one") == len(await store.all_sessions()) == 20


async def test_a_lost_notification_is_made_up_for(
    stores: tuple[PostgresStore, PostgresStore], postgres_server: Server
) -> None:
    heard = asyncio.Event()
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query = 'SELECT 1'"
    )
    stores[1].on_stored(heard.set)
    async with asyncio.timeout(PATIENCE):
        await heard.wait()


async def test_behind_a_pooler_hosts_look_for_themselves(
    place: Place, postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listening, "PROBE_SECONDS", 0.3)
    heard = asyncio.Event()
    with pgbouncer(postgres_server, "contracts") as url:
        async with opened(place_of(url)) as one, opened(place) as two:
            await asyncio.gather(*(one.add_session(session(f"ses_{n}"), None, 99) for n in range(30)))
            assert len(await two.all_sessions()) == 30
            await eventually(lambda: _said(capsys, "store_not_notified"))
            heard.clear()
            one.on_stored(heard.set)
            await two.add_events([happened("evt_one")])
            async with asyncio.timeout(PATIENCE):
                await heard.wait()


async def _said(capsys: pytest.CaptureFixture[str], what: str) -> bool:
    out, err = capsys.readouterr()
    return what in out + err


# opening


async def test_two_hosts_can_make_the_tables_at_once(postgres_server: Server) -> None:
    place = place_of(postgres_server.create("fresh"))
    opening = [PostgresStore.open(place, LOCAL.host, lambda: LOCAL) for _ in range(4)]
    for store in await asyncio.gather(*opening):
        await store.close()
    assert postgres_server.execute("SELECT count(*) FROM buntime_schema", "fresh") == [(len(migrations.steps()),)]


async def test_a_step_that_was_left_out_is_made_later(postgres_server: Server) -> None:
    place = place_of(postgres_server.create("gap"))
    await (await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)).close()
    postgres_server.execute("DROP TABLE rates, places", "gap")
    postgres_server.execute("DELETE FROM buntime_schema WHERE version = 5", "gap")
    await (await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)).close()
    assert postgres_server.execute("SELECT count(*) FROM rates", "gap") == [(0,)]


async def test_a_schema_that_is_too_new_is_refused_and_one_that_is_fit_is_not(postgres_server: Server) -> None:
    place = place_of(postgres_server.create("newer"))
    await (await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)).close()
    postgres_server.execute("INSERT INTO buntime_schema (version, needs) VALUES (900, 1)", "newer")
    await (await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)).close()
    postgres_server.execute("INSERT INTO buntime_schema (version, needs) VALUES (901, 900)", "newer")
    with pytest.raises(StoreTooNew, match="version 901"):
        await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://buntime:topsecret@127.0.0.1:PORT/contracts",
        "postgresql://buntime:topsecret@127.0.0.1:PORT/none",
        "postgresql://buntime:topsecret@127.0.0.1:1/x",
        "postgresql://buntime:topsecret%zz@127.0.0.1/x",
        "postgresql://buntime:topsecret@127.0.0.1/x?what=topsecret",
    ],
)
async def test_a_database_that_cannot_be_used_is_named_without_its_password(url: str, postgres_server: Server) -> None:
    with pytest.raises(StoreUnusable) as refused:
        await PostgresStore.open(place_of(url.replace("PORT", str(postgres_server.port))), LOCAL.host, lambda: LOCAL)
    assert "topsecret" not in str(refused.value)


def test_the_settings_do_not_show_the_password() -> None:
    assert "topsecret" not in repr(Config(store="postgresql://buntime:topsecret@db/x"))


async def test_a_single_connection_prepares_nothing_that_a_pooler_would_lose(place: Place) -> None:
    async with await connect(place) as connection:
        for _ in range(9):
            await connection.execute("SELECT 1")
        found = await (await connection.execute("SELECT count(*) AS prepared FROM pg_prepared_statements")).fetchone()
        assert found == {"prepared": 0}


def test_a_password_of_the_environment_is_used_unless_the_address_has_one() -> None:
    for url, expected in (("postgresql://buntime@db/x", "fromenv"), ("postgresql://buntime:inurl@db/x", "inurl")):
        config = with_password(Config(store=url), {"PGPASSWORD": "fromenv"})
        assert f"password={expected}" in place_of(config.store).conninfo
        assert place_of(config.store).shown == "postgresql://db/x"
        assert expected not in repr(config)


async def test_a_database_of_another_encoding_is_refused(postgres_server: Server) -> None:
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(StoreUnusable, match="LATIN1"):
        await PostgresStore.open(place_of(postgres_server.url("latin")), LOCAL.host, lambda: LOCAL)


# text


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\x1a", "\x1a0000", "\x1ad800\udfff\0", "Zoë ✨"])
async def test_text_that_postgresql_refuses_comes_back_as_it_was(text: str, place: Place) -> None:
    async with opened(place) as store:
        await store.add_account(account())
        await store.add_key(replace(key(), name=text))
        assert [found.name for found in await store.list_keys()] == [text]
        await store.add_session(replace(session(called=text), on_wake=text, metadata={text: text}), None, 1)
        found = await store.named_session("acc_one", text)
        assert found is not None
        assert (found.name, found.on_wake, found.metadata) == (text, text, {text: text})


async def test_an_id_that_postgresql_refuses_is_not_found(place: Place) -> None:
    async with opened(place) as store:
        assert await store.get_session("ses_\0") is None
        assert await store.find_key("\ud800") is None
        assert await store.list_events("\0") == []


# ending


async def test_a_closed_store_is_unavailable(place: Place) -> None:
    store = await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)
    await store.close()
    for call in (store.add_session(session(), None, 1), store.get_session("ses_one")):
        with pytest.raises(BuntimeError) as refused:
            await call
        assert isinstance(refused.value, Unavailable)


# hosts of a fleet


@dataclass(slots=True)
class Host:
    """A host of a fleet, as far as its store goes."""

    store: PostgresStore
    members: PostgresMembers
    me: Membership

    async def lose(self, other: "Host") -> None:
        """Takes over from a host whose lease is over."""
        lost = next(each for each in await self.members.list() if each.id == other.me.host)
        assert await self.members.take_over(self.me, lost)


def _same(me: Membership) -> Membership:
    return me


@pytest.fixture
async def hosts(place: Place, postgres_server: Server) -> AsyncIterator[tuple[Host, Host]]:
    async with AsyncExitStack() as stack:
        pool = AsyncConnectionPool(place.conninfo, min_size=1, open=False)
        members = PostgresMembers(await stack.enter_async_context(pool))
        found = []
        for name in ("hst_a", "hst_b"):
            me = await members.join(name, Description(f"{name}:1", "1"))
            store = await PostgresStore.open(place, name, partial(_same, me))
            stack.push_async_callback(store.close)
            found.append(Host(store, members, me))
        yield found[0], found[1]


async def lost(hosts: tuple[Host, Host], postgres_server: Server) -> None:
    postgres_server.execute("UPDATE hosts SET lease_until = now() WHERE id = 'hst_a'", "contracts")
    await hosts[1].lose(hosts[0])


ASLEEP = replace(session("ses_one", state=State.DEEP_SLEEP), archived=True, host="hst_a")


async def test_a_new_session_is_its_hosts(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    await a.store.add_session(session(), None, 1)
    stored = await b.store.get_session("ses_one")
    assert stored is not None
    assert stored.host == "hst_a"
    assert [len(await each.store.all_sessions()) for each in hosts] == [1, 0]
    assert [len(await each.store.changed_sessions()) for each in hosts] == [1, 0]
    assert [(await each.store.count_states())[State.ACTIVE] for each in hosts] == [1, 0]
    assert [len(await each.store.account_sessions("acc_one")) for each in hosts] == [1, 1]


async def test_another_host_changes_nothing_of_a_session(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    await a.store.add_session(session(), None, 1)
    stored = await b.store.get_session("ses_one")
    assert stored is not None
    with pytest.raises(NotOwner):
        await b.store.change_session(stored, replace(stored, metadata={"b": 1}))
    with pytest.raises(NotOwner):
        await b.store.remove_session("ses_one")
    with pytest.raises(NotOwner):
        await b.store.add_snapshot(snapshot(), layer(), None, 9)
    await b.store.touch_session("ses_one", NOW + 100)
    await b.store.close()
    assert await a.store.get_session("ses_one") == stored


async def test_a_host_that_lost_a_session_changes_nothing_of_it(
    hosts: tuple[Host, Host], postgres_server: Server
) -> None:
    a, b = hosts
    await a.store.add_session(ASLEEP, None, 1)
    await lost(hosts, postgres_server)
    with pytest.raises(MayNotAct):
        await a.store.change_session(ASLEEP, replace(ASLEEP, metadata={"a": 1}))
    claimed = await b.store.claim("ses_one", "vol_new")
    assert claimed == replace(ASLEEP, host="hst_b", epoch=2, version=2, volume="vol_new")
    again = await a.members.join("hst_a", Description("hst_a:1", "1"))
    a.store._membership = lambda: again
    with pytest.raises(NotOwner):
        await a.store.change_session(ASLEEP, replace(ASLEEP, metadata={"a": 1}))
    assert [each.volume for each in await a.store.left_behind()] == ["vol_ses_one"]


async def test_a_version_that_is_too_old_is_no_other_owner(hosts: tuple[Host, Host]) -> None:
    a, _ = hosts
    await a.store.add_session(ASLEEP, None, 1)
    await a.store.change_session(ASLEEP, replace(ASLEEP, metadata={"a": 1}))
    with pytest.raises(StaleSession):
        await a.store.change_session(ASLEEP, replace(ASLEEP, metadata={"a": 2}))


async def test_a_host_that_may_not_act_stores_nothing(hosts: tuple[Host, Host], postgres_server: Server) -> None:
    a, b = hosts
    await lost(hosts, postgres_server)
    for change in (
        a.store.add_session(session(), None, 1),
        a.store.add_layer(layer()),
        a.store.add_account(account()),
        a.store.add_answer(answer()),
    ):
        with pytest.raises(MayNotAct):
            await change
    assert await b.store.get_session("ses_one") is None


async def test_limits_hold_over_all_hosts(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    adds = [hosts[n % 2].store.add_session(session(f"ses_{n}"), None, 5) for n in range(12)]
    outcomes = await asyncio.gather(*adds, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 5
    assert await a.store.count_sessions("acc_one") == await b.store.count_sessions("acc_one") == 5


async def test_what_a_lost_host_left_is_kept_aside_once(hosts: tuple[Host, Host], postgres_server: Server) -> None:
    a, b = hosts
    awake = replace(session(), host="hst_a")
    await a.store.add_session(awake, None, 1)
    await lost(hosts, postgres_server)
    taken = await b.store.take("ses_one", "vol_new")
    assert taken is not None
    assert (taken.host, taken.state, taken.volume) == ("hst_b", State.ACTIVE, "vol_new")
    again = await a.members.join("hst_a", Description("hst_a:1", "1"))
    a.store._membership = lambda: again
    (left,) = await a.store.left_behind()
    assert left.changed
    assert await a.store.keep_aside(left, snapshot(), layer())
    assert not await a.store.keep_aside(left, snapshot("snp_two"), layer("lay_two"))
    assert await a.store.left_behind() == []
    assert await b.store.get_snapshot("snp_one") == snapshot()


async def test_hosts_agree_on_what_the_first_one_said(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    assert await b.store.agreed("key") is None
    assert await a.store.agree("key", "first") == "first"
    assert await b.store.agree("key", "second") == await b.store.agreed("key") == "first"


async def test_a_host_that_has_looked_at_the_duty_tells_no_other_host(
    hosts: tuple[Host, Host], postgres_server: Server
) -> None:
    a, b = hosts
    assert await a.store.take_duty()
    marks = postgres_server.execute("SELECT count(*) FROM changes", "contracts")
    assert (await a.store.take_duty(), await b.store.take_duty()) == (True, False)
    assert postgres_server.execute("SELECT count(*) FROM changes", "contracts") == marks
    await lost(hosts, postgres_server)
    assert await b.store.take_duty()


async def test_a_key_is_in_progress_on_one_host(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    await a.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)
    with pytest.raises(IdempotencyInProgress):
        await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)
    with pytest.raises(IdempotencyKeyReused):
        await b.store.begin_key("acc_one", "k", "other", NOW, repeatable=False)
    await a.store.end_key("acc_one", "k")
    await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)
    await b.store.add_answer(answer())
    assert await a.store.find_answer("acc_one", "k") == answer()


@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_a_lost_host_was_asked_is_done_again_only_if_it_may_be(
    hosts: tuple[Host, Host], postgres_server: Server, repeatable: bool
) -> None:
    a, b = hosts
    await a.store.begin_key("acc_one", "k", "told", NOW, repeatable=repeatable)
    await lost(hosts, postgres_server)
    for _ in range(2):
        if repeatable:
            await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=True)
        else:
            with pytest.raises(OutcomeUnknown):
                await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)


async def test_a_key_whose_request_has_just_ended_elsewhere_does_not_begin_again(
    hosts: tuple[Host, Host], place: Place
) -> None:
    """The other host has looked for an answer before there was one."""
    a, b = hosts
    await a.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)
    await a.store.add_answer(answer())
    for _ in range(2):
        with pytest.raises(IdempotencyInProgress):
            await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=False)
    async with await connect(place) as connection:
        found = await (await connection.execute("SELECT FROM keys_in_use")).fetchall()
    assert not found, "nobody has the key"


async def test_a_key_begins_on_no_host_while_another_one_stores_its_answer(hosts: tuple[Host, Host]) -> None:
    for number in range(20):
        a, b = hosts if number % 2 else hosts[::-1]
        await a.store.begin_key("acc_one", f"k{number}", "told", NOW, repeatable=False)
        begun = asyncio.create_task(b.store.begin_key("acc_one", f"k{number}", "told", NOW, repeatable=False))
        await asyncio.sleep(random.uniform(0, 0.002))
        await a.store.add_answer(answer(f"k{number}"))
        with pytest.raises(IdempotencyInProgress):
            await begun


@pytest.mark.parametrize(("repeatable", "begins"), [(True, True), (False, False), (False, True)])
async def test_a_key_is_in_progress_nowhere_after_an_unexpected_failure(
    hosts: tuple[Host, Host], repeatable: bool, begins: bool
) -> None:
    a, b = hosts
    asked = KeyedRequest("acc_one", "k", "told", lambda: NOW, repeatable=repeatable)

    async def fail(_: object) -> Reply:
        if begins:
            note_begun()
        raise RuntimeError

    async with Tasks() as tasks:
        here = Idempotency(a.store, Vault(bytes(32)), tasks, lambda: NOW)
        with noting_entries(may_guess=False), pytest.raises(RuntimeError):
            await once(here, asked, fail)
    found = await b.store.find_answer("acc_one", "k")
    assert (found is not None and b"outcome_unknown" in found.body) == (begins and not repeatable)
    if found is None:
        await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=repeatable)


async def test_a_host_that_has_lapsed_frees_no_key_of_a_run_that_it_began_before(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    for name, repeatable in (("run", False), ("work", True)):
        await a.store.begin_key("acc_one", name, "told", NOW, repeatable=repeatable)
    again = await a.members.join("hst_a", Description("hst_a:1", "1"))
    a.store._membership = lambda: again
    for name in ("run", "work"):
        await a.store.end_key("acc_one", name)
    with pytest.raises(OutcomeUnknown):
        await b.store.begin_key("acc_one", "run", "told", NOW, repeatable=False)
    await b.store.begin_key("acc_one", "work", "told", NOW, repeatable=True)


async def test_a_host_gives_up_no_key_that_another_one_went_on_with(
    hosts: tuple[Host, Host], postgres_server: Server
) -> None:
    a, b = hosts
    await a.store.begin_key("acc_one", "k", "told", NOW, repeatable=True)
    await lost(hosts, postgres_server)
    await b.store.begin_key("acc_one", "k", "told", NOW, repeatable=True)
    again = await a.members.join("hst_a", Description("hst_a:1", "1"))
    a.store._membership = lambda: again
    await a.store.end_key("acc_one", "k")
    with pytest.raises(IdempotencyInProgress):
        await a.store.begin_key("acc_one", "k", "told", NOW, repeatable=True)


async def test_a_host_with_many_sessions_does_other_things_while_it_reads_them(
    hosts: tuple[Host, Host], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease must be renewed meanwhile."""
    a, _ = hosts
    await a.store.add_session(ASLEEP, None, 1)
    with connect_blocking(place) as connection:
        connection.execute("CREATE TEMPORARY TABLE one AS SELECT * FROM sessions")
        connection.execute(
            "INSERT INTO sessions SELECT (jsonb_populate_record(one, jsonb_build_object('id', 'ses_' || n))).* "
            "FROM one, generate_series(1, 1500) AS n"
        )
    turn, turns = 0, Counter[int]()

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def noted(row: DictRow) -> Session:
        turns[turn] += 1
        return session_of(row)

    monkeypatch.setattr("buntime.stores.postgres.store.session_of", noted)
    counting = asyncio.create_task(count())
    try:
        assert len(await a.store.all_sessions()) == 1501
        assert len(await a.store.changed_sessions()) == 1501
    finally:
        await cancel_and_wait(counting)
    assert max(turns.values()) <= 500
