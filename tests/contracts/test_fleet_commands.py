"""What operators do with the hosts of a fleet, beside servers that run or are lost."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from buntime.config import Config
from buntime.fleet.hosts import HostCommands, Removal, Standing
from buntime.fleet.members import HostState, SessionCounts
from buntime.session import Session, State
from buntime.stores.opening import command_store
from buntime.stores.rows.sessions import session_row
from tests.contracts.examples import session
from tests.contracts.postgres import emptied

pytestmark = pytest.mark.postgres

A, B = "hst_aaaaaaaaaaaaaaaaaa", "hst_bbbbbbbbbbbbbbbbbb"
ASLEEP = replace(session(state=State.DEEP_SLEEP), archived=True)


class Fleet:
    """Hosts and sessions as their servers have stored them."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, statement: str, values: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def join(self, host: str, lease: float = 60) -> None:
        self.run(
            "INSERT INTO hosts (id, lease_until, incarnation, renewals, taken_over, state, address, version, capacity) "
            "VALUES (%s, clock_timestamp() + make_interval(secs => %s), 3, 7, false, 'active', '10.0.0.1:8443', '1', "
            "'{}')",
            (host, lease),
        )

    def add(self, host: str, found: Session) -> None:
        row = dict(session_row(replace(found, host=host)))
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        self.run(
            f"INSERT INTO sessions ({names}, changed) VALUES ({places}, pg_current_xact_id())",
            tuple(row.values()),
        )

    def owner(self, session_id: str) -> tuple[str, int]:
        ((host, epoch),) = self.run("SELECT host, epoch FROM sessions WHERE id = %s", (session_id,))
        return host, epoch

    @contextmanager
    def commands(self) -> Iterator[HostCommands]:
        with command_store(Config(store=self._url)) as store:
            assert store.hosts is not None
            yield store.hosts

    def remove(self, host: str, *, gives_up: bool = False) -> Removal:
        with self.commands() as hosts:
            return hosts.remove(host, gives_up=gives_up)

    def ids(self) -> list[str]:
        with self.commands() as hosts:
            return [host.id for host in hosts.list().hosts]


@pytest.fixture
async def fleet(postgres_url: str) -> Fleet:
    await emptied(postgres_url)
    fleet = Fleet(postgres_url)
    fleet.run("DELETE FROM hosts")
    return fleet


def some(number: int, **fields: Any) -> Session:
    return replace(ASLEEP, id=f"ses_{number}", name=None, volume=f"vol_{number}", **fields)


async def test_hosts_are_listed_with_what_they_have(fleet: Fleet) -> None:
    fleet.join(B)
    fleet.join(A, lease=-1)
    for number, state in enumerate((State.ACTIVE, State.ACTIVE, State.IDLE, State.DEEP_SLEEP, State.DELETING)):
        fleet.add(A, some(number, state=state, archived=False))
    fleet.add(A, some(9))
    fleet.add("", some(10))
    with fleet.commands() as hosts:
        listing = hosts.list()
    first, second = listing.hosts
    assert (first.id, first.standing, first.sessions) == (A, Standing.LOST, SessionCounts(2, 1, 2, 1))
    assert (second.id, second.standing, second.sessions) == (B, Standing.ACTIVE, SessionCounts())
    assert listing.nobody == SessionCounts(asleep=1)
    assert second.lease is not None
    assert (second.lease.incarnation, second.lease.renewals) == (3, 7)
    assert 0 < second.lease.seconds_left <= 60
    assert second.report is None, "an empty report cannot be read"


async def test_a_report_is_listed(fleet: Fleet) -> None:
    room = {"total": 4, "used": 1, "reserved": 1}
    rooms = dict.fromkeys(("memory", "disk", "volumes", "addresses"), room)
    fleet.join(A)
    fleet.run(
        "UPDATE hosts SET capacity = %s", (json.dumps({"running": 1, "parked": 0, "cores": 2, "load": 1, **rooms}),)
    )
    with fleet.commands() as hosts:
        (host,) = hosts.list().hosts
    assert host.report is not None
    assert host.report.room == 0.5


async def test_a_host_is_marked_to_drain_and_back(fleet: Fleet) -> None:
    fleet.join(A)
    with fleet.commands() as hosts:
        assert hosts.mark(A, HostState.DRAINING, 100)
        assert not hosts.mark(B, HostState.DRAINING, 100)
    with fleet.commands() as hosts:
        (host,) = hosts.list().hosts
        assert (host.standing, host.is_draining) == (Standing.DRAINING, True)
        assert host.drain_left is not None
        assert 90 <= host.drain_left <= 100
        hosts.mark(A, HostState.ACTIVE, 0)
        (host,) = hosts.list().hosts
        assert (host.standing, host.is_draining, host.drain_left) == (Standing.ACTIVE, False, None)


async def test_a_host_whose_lease_runs_is_not_removed(fleet: Fleet) -> None:
    fleet.join(A)
    assert fleet.remove(A, gives_up=True) is Removal.RUNS
    assert fleet.remove(B) is Removal.UNKNOWN
    assert fleet.ids() == [A]


@pytest.mark.parametrize(("state", "archived"), [(State.ACTIVE, False), (State.IDLE, False), (State.DEEP_SLEEP, False)])
async def test_a_host_with_files_that_nobody_else_has_is_not_removed(
    fleet: Fleet, state: State, archived: bool
) -> None:
    fleet.join(A, lease=-1)
    fleet.add(A, some(1, state=state, archived=archived))
    fleet.add(A, some(2))
    assert fleet.remove(A) is Removal.HAS_SESSIONS
    assert (fleet.ids(), fleet.owner("ses_1"), fleet.owner("ses_2")) == ([A], (A, 1), (A, 1))


async def test_what_a_removed_host_had_is_nobodys_and_what_others_have_stays(fleet: Fleet) -> None:
    fleet.join(A, lease=-1)
    fleet.join(B)
    fleet.add(A, some(1))
    fleet.add(B, some(2))
    fleet.add(A, some(3, state=State.DELETING))
    assert fleet.remove(A) is Removal.DONE
    assert fleet.ids() == [B]
    assert [fleet.owner(f"ses_{number}") for number in (1, 2, 3)] == [("", 1), (B, 1), ("", 1)]


async def test_sessions_that_were_given_up_keep_their_state_and_their_host_finds_what_it_may_have(fleet: Fleet) -> None:
    fleet.join(A, lease=-1)
    fleet.add(A, some(1, state=State.ACTIVE, archived=False))
    fleet.add(A, some(2))
    fleet.add(A, some(3, state=State.DELETING))
    assert fleet.remove(A, gives_up=True) is Removal.DONE
    assert fleet.run("SELECT host, state FROM sessions WHERE id = 'ses_1'") == [("", "active")]
    left = fleet.run("SELECT volume, host, session, changed FROM left_behind ORDER BY volume")
    assert left == [("vol_1", A, "ses_1", True), ("vol_2", A, "ses_2", False), ("vol_3", A, "ses_3", False)]


async def test_a_removal_that_fails_changes_nothing(fleet: Fleet) -> None:
    fleet.join(A, lease=-1)
    fleet.add(A, some(1))

    def fail() -> None:
        with fleet.commands() as hosts:
            hosts.remove(A, gives_up=False)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert (fleet.ids(), fleet.owner("ses_1")) == ([A], (A, 1))
