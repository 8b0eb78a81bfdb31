"""Two hosts' worth of stores and owners on one database: who serves a session, and what one host does for all."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from buntime.errors import MayNotAct, OutcomeUnknown, SessionNotFound, Unavailable
from buntime.fleet import taking_over
from buntime.fleet.budget import BUDGET
from buntime.fleet.choices import Choices
from buntime.fleet.comparing import Comparing, HeldSandbox
from buntime.fleet.keeping import Keeping
from buntime.fleet.members import Description, Fenced, HostState, Membership
from buntime.fleet.owners import FleetOwners
from buntime.fleet.postgres.members import PostgresMembers
from buntime.ports import AnotherHost, Peer
from buntime.session import SavedVolume, Session, State
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore
from tests.contracts import examples

pytestmark = pytest.mark.postgres

SAVED = SavedVolume("ses_one/1700000000-aaaaaaaaaaaa", 1, examples.NOW, is_checkpoint=True)


class Host:
    """A host, without sandboxes: its store, its owners, and its lease as the database has it."""

    def __init__(self, name: str, members: PostgresMembers) -> None:
        self.name = name
        self.members = members
        self.me: Membership | None = None
        self.choices = Choices(name, members)
        self.drains = False
        self.store: PostgresStore
        self.frozen: list[str] = []
        self.held: dict[str, HeldSandbox] = {}

    def membership(self) -> Membership:
        if self.me is None:
            raise Fenced
        return self.me

    async def join(self) -> None:
        self.me = await self.members.join(self.name, Description(f"{self.name}:8443", "1"))

    @property
    def owners(self) -> FleetOwners:
        return FleetOwners(
            self.name,
            self.store,
            lambda: self.me is not None,
            self.choices,
            lambda: self.drains,
            lambda: self.me.incarnation if self.me else 0,
        )

    def keeping(self, owners: FleetOwners | None = None, now: int = examples.NOW) -> Keeping:
        return Keeping(self.members, self.store, self.membership, owners or self.owners, lambda: now)

    def all(self) -> Mapping[str, HeldSandbox]:
        return self.held

    def keep_frozen(self, sandboxes: Collection[str]) -> None:
        self.frozen += sandboxes


@pytest.fixture
async def hosts(tables: str) -> AsyncIterator[tuple[Host, Host]]:
    async with AsyncExitStack() as stack:
        place = place_of(tables)
        pool = AsyncConnectionPool(place.conninfo, min_size=1, open=False)
        members = PostgresMembers(await stack.enter_async_context(pool))
        found = Host("a", members), Host("b", members)
        for host in found:
            await host.join()
            host.store = await PostgresStore.open(place, host.name, host.membership)
            stack.push_async_callback(host.store.close)
        yield found


def session(state: State = State.DEEP_SLEEP, **fields: object) -> Session:
    return replace(examples.session(state=state), archived=state is State.DEEP_SLEEP, **fields)  # type: ignore[arg-type]


async def lose_a(hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`b` takes over from `a`, which has seen no renewal for longer than a lease."""
    a, b = hosts
    a.me = None
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("UPDATE hosts SET lease_until = now() - interval '1 second' WHERE id = 'a'")
    now = [0.0]
    monkeypatch.setattr(taking_over, "boot_seconds", lambda: now[0])
    keeping = b.keeping()
    await keeping.look()
    now[0] += BUDGET.lease
    await keeping.look()
    assert [each.taken_over for each in await b.members.list()] == [True, False]


async def test_a_host_names_the_owner_that_is_well(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    await a.store.add_session(session(), None, 1)
    read = await b.store.get_session("ses_one")
    assert read is not None
    assert (a.owners.is_mine(read), b.owners.is_mine(read)) == (True, False)
    with pytest.raises(AnotherHost) as elsewhere:
        await b.owners.here(read)
    assert elsewhere.value.peer == Peer("a", "a:8443")
    assert await a.owners.here(read) == read


async def test_a_sleeping_session_of_a_lost_host_is_served_elsewhere_once(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(), None, 1)
    before = await a.store.get_session("ses_one")
    assert before is not None
    await lose_a(hosts, tables, monkeypatch)
    claimed = await b.owners.here(before)
    assert (claimed.host, claimed.epoch) == ("b", before.epoch + 1)
    assert claimed.volume != before.volume, "what the lost host has is never taken for the session's files"
    assert await b.owners.here(before) == claimed, "a request that read the row before finds it here"
    await a.join()
    with pytest.raises(AnotherHost):
        await a.owners.here(before)


async def test_a_session_that_was_awake_on_a_lost_host_waits_for_it_or_for_its_account(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(State.ACTIVE, saved=SAVED), None, 1)
    before = await a.store.get_session("ses_one")
    assert before is not None
    await lose_a(hosts, tables, monkeypatch)
    with pytest.raises(Unavailable) as lost:
        await b.owners.here(before)
    assert lost.value.details["reason"] == "host_lost"
    taken = await b.owners.take(before)
    assert (taken.host, taken.state) == ("b", State.ACTIVE)
    await a.join()
    (left,) = await a.store.left_behind()
    assert (left.volume, left.changed) == (before.volume, True)


async def test_a_host_that_comes_back_first_has_its_sessions(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(State.ACTIVE, saved=SAVED), None, 1)
    before = await a.store.get_session("ses_one")
    assert before is not None
    await lose_a(hosts, tables, monkeypatch)
    await a.join()
    assert await a.owners.here(before) == before
    for ask in (b.owners.here, b.owners.take):
        with pytest.raises(AnotherHost):
            await ask(before)


async def test_nothing_is_taken_of_which_the_archive_has_nothing(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(State.ACTIVE), None, 1)
    before = await a.store.get_session("ses_one")
    assert before is not None
    await lose_a(hosts, tables, monkeypatch)
    with pytest.raises(Unavailable) as lost:
        await b.owners.take(before)
    assert lost.value.details["reason"] == "host_lost"
    assert await b.store.get_session("ses_one") == before


async def test_a_host_that_may_not_act_serves_nothing(hosts: tuple[Host, Host]) -> None:
    a, _ = hosts
    await a.store.add_session(session(), None, 1)
    read = await a.store.get_session("ses_one")
    assert read is not None
    a.me = None
    assert not a.owners.is_mine(read)
    with pytest.raises(MayNotAct):
        await a.owners.here(read)
    a.me = Membership("a", 1)
    await a.store.remove_session("ses_one")
    with pytest.raises(SessionNotFound):
        await a.owners.here(read)


async def test_a_request_that_began_before_the_host_lapsed_is_not_answered(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = hosts
    asked = examples.answer()
    await a.store.begin_key(asked.account, asked.key, asked.fingerprint, asked.created_at, repeatable=False)
    stands = a.owners.standing()
    assert stands()
    await lose_a(hosts, tables, monkeypatch)
    await a.join()
    assert a.owners.standing()()
    assert not stands(), "another host may have done the request since"
    await a.store.add_answer(asked)
    assert await a.store.find_answer(asked.account, asked.key) is None
    with pytest.raises(OutcomeUnknown):
        await a.store.begin_key(asked.account, asked.key, asked.fingerprint, asked.created_at, repeatable=False)


async def test_one_host_ends_what_a_lost_one_cannot(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(State.ACTIVE), None, 9)  # it has expired meanwhile
    await a.store.add_session(replace(session(State.ACTIVE), id="ses_two", expires_at=None), None, 9)
    await lose_a(hosts, tables, monkeypatch)
    owners = b.owners
    await b.keeping(owners, examples.NOW + 1000).look()
    assert owners.has_duty()
    assert [each.id for each in await b.store.all_sessions()] == ["ses_one"]
    assert [each.id for each in await b.store.changed_sessions()] == ["ses_one"], "the keeper hears of it"


async def test_sandboxes_of_sessions_that_moved_stay_frozen(
    hosts: tuple[Host, Host], tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    await a.store.add_session(session(), None, 9)
    await a.store.add_session(replace(session(State.ACTIVE), id="ses_two", volume="vol_two"), None, 9)
    before = await a.store.get_session("ses_one")
    assert before is not None
    a.held = {
        "sb_one": HeldSandbox("ses_one", before.volume),
        "sb_two": HeldSandbox("ses_two", "vol_two"),
        "sb_new": HeldSandbox("ses_new", "vol_new"),
    }
    await lose_a(hosts, tables, monkeypatch)
    claimed = await b.owners.here(before)
    await a.join()
    assert a.me is not None
    moved = asyncio.Event()
    comparing = Comparing(a.store, a, moved)
    await comparing.compare(a.me)
    assert (sorted(a.frozen), moved.is_set()) == (["sb_new", "sb_one"], True)
    a.frozen.clear()
    await comparing.compare(a.me)
    assert a.frozen == ["sb_one"], "a server that goes on may be making a session that no row names yet"
    await b.store.change_session(claimed, replace(claimed, metadata={}))


@pytest.mark.parametrize("adopts", [False, True])
async def test_a_host_without_the_files_leaves_what_a_server_had_alone(
    hosts: tuple[Host, Host], tables: str, adopts: bool
) -> None:
    a, _ = hosts
    await a.store.add_session(session(State.ACTIVE), None, 9)
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("UPDATE sessions SET host = 'local'")
    assert a.me is not None
    await Comparing(a.store, a, asyncio.Event(), adopts=adopts).compare(a.me)
    assert len(await a.store.all_sessions()) == int(adopts)


async def test_a_create_may_go_to_each_host_that_is_well(hosts: tuple[Host, Host], tables: str) -> None:
    a, _ = hosts
    owners = a.owners
    assert await owners.candidates("") == [None], "nobody has looked yet"
    await a.choices.look()
    assert set(await owners.candidates("")) == {None, Peer("b", "b:8443")}
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("UPDATE hosts SET lease_until = now() - interval '1 second' WHERE id = 'b'")
    await a.choices.look()
    assert await owners.candidates("") == [None]


async def given_up(host: Host) -> Session:
    """A session as it was before the host made it nobody's."""
    await host.store.add_session(session(), None, 1)
    before = await host.store.get_session("ses_one")
    assert before is not None
    assert await host.store.release(before)
    return before


async def test_a_host_that_was_resumed_a_moment_ago_sends_no_request_to_itself(hosts: tuple[Host, Host]) -> None:
    """The list of hosts says so before the next renewal does."""
    a, b = hosts
    before = await given_up(a)
    a.drains = True
    await a.choices.look()
    with pytest.raises(AnotherHost) as elsewhere:
        await a.owners.here(before)
    assert elsewhere.value.peer.id == "b"
    await b.members.mark("b", HostState.DRAINING)
    await a.choices.look()
    assert (await a.owners.here(before)).host == "a"


async def test_a_host_that_drains_claims_nothing_that_another_host_can_have(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    before = await given_up(a)
    a.drains = True
    await a.members.mark("a", HostState.DRAINING)
    await a.choices.look()
    with pytest.raises(AnotherHost) as elsewhere:
        await a.owners.here(before)
    assert elsewhere.value.peer == Peer("b", "b:8443")
    assert (await a.owners.candidates(""))[-1] is None
    await a.members.mark("b", HostState.DRAINING)
    await a.choices.look()
    assert (await a.owners.here(before)).host == "a", "there is no other host"
    with pytest.raises(AnotherHost):
        await b.owners.here(before)
