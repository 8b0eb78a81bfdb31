"""A whole host is silent before another takes over from it, whatever is stopped or killed.

The host is a server that holds a lease in PostgreSQL, its watchdog, and a process in its sandboxes' cgroup that sends
packets. The test is the other host. Only the order of what happens counts.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.budget import BUDGET
from buntime.fleet.keeping_spare import spare_of
from buntime.fleet.lease_file import LeaseFile
from buntime.fleet.members import Description, Member
from buntime.fleet.postgres.members import PostgresMembers
from buntime.fleet.taking_over import TakingOver
from buntime.fleet.watchdog import end_watchdog
from buntime.sandboxes.kernel.cgroup_version import ROOT
from tests.fleet.boxes import V1, V2, Boxes
from tests.fleet.host import Settings
from tests.fleet.networks import Networks, networks
from tests.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.postgres, pytest.mark.alone]

INSTANCE = "tlos"  # 4 characters, as all have
LOOK = 0.2  # seconds between two looks of the other host
LISTEN = 0.5  # seconds, in which a sandbox that runs would send a hundred packets
HIERARCHY = V2 if (ROOT / "cgroup.controllers").exists() else V1


class Host:
    def __init__(self, settings: Settings, net: Networks, boxes: Boxes) -> None:
        self.settings, self.boxes = settings, boxes
        self.file = LeaseFile(settings.lease_file)
        self.heard: list[float] = []  # when each packet of the sandbox arrived
        self._net, self._ended = net, threading.Event()
        self._ear = threading.Thread(target=self._listen)
        self._ear.start()
        self.server = self._start_server()
        self.sandbox = boxes.start("one", [*net.sandbox.enter(), *settings.command("sandbox")])

    def _start_server(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._net.host.enter(), *self.settings.command("server")])

    def start_watchdog(self) -> subprocess.Popen[bytes]:
        """As its unit does."""
        return subprocess.Popen([*self._net.host.enter(), *self.settings.command("watchdog")])

    def restart_server(self) -> None:
        self.server = self._start_server()

    @property
    def watchdog(self) -> int:
        """Its pid; 0 where none has told of itself yet."""
        told = self.file.watched()
        return told.pid if told else 0

    @property
    def spare(self) -> int:
        """Its pid; 0 where none runs."""
        return spare_of(self.file)

    @property
    def is_open(self) -> bool:
        told = self.file.watched()
        return bool(told and told.incarnation and self.acts)

    @property
    def acts(self) -> bool:
        return self.settings.acts.exists()

    @property
    def compared(self) -> list[tuple[float, int]]:
        with suppress(FileNotFoundError):
            lines = self.settings.compared.read_text().splitlines()
            return [(float(when), int(incarnation)) for when, incarnation in map(str.split, lines)]
        return []

    def heard_since(self, when: float) -> bool:
        return bool(self.heard) and self.heard[-1] > when

    async def speaks(self) -> None:
        now = boot_seconds()
        await eventually(lambda: self.heard_since(now), "a packet of the sandbox")

    async def was_silent(self, at: float) -> None:
        await asyncio.sleep(LISTEN)
        assert self.heard
        assert self.heard[-1] < at

    def signal(self, number: signal.Signals, *pids: int) -> None:
        for pid in pids:
            os.kill(pid, number)

    def _listen(self) -> None:
        ear = self._net.ear
        while not self._ended.is_set():
            with suppress(TimeoutError):
                ear.recv(64)
                self.heard.append(boot_seconds())

    def close(self) -> None:
        for pid in {self.server.pid, self.watchdog} - {0}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()
        end_watchdog(self.settings.lease_file)
        self._ended.set()
        self._ear.join()
        self.file.close()


class Other:
    """Another host, which watches."""

    def __init__(self, members: PostgresMembers) -> None:
        self.members = members

    async def takes_over(self) -> tuple[float, Member]:
        """Returns when it did (boot clock), and what it took over."""
        me = await self.members.join("other", Description("127.0.0.2:7000", "1"))
        taking, taken = TakingOver(self.members, me), list[Member]()

        async def look() -> None:
            await self.members.renew(me, {})
            taken.extend(await taking.look())

        while not taken:
            await look()
            await asyncio.sleep(LOOK)
        return boot_seconds(), taken[0]


@pytest.fixture
async def other(tables: str) -> AsyncIterator[Other]:
    async with AsyncConnectionPool(tables, min_size=1, max_size=2, open=False) as pool:
        yield Other(PostgresMembers(pool))


@pytest.fixture
def own_watchdog() -> bool:
    return True


@pytest.fixture
def host(tables: str, tmp_path: Path, own_watchdog: bool) -> Iterator[Host]:
    with networks(INSTANCE) as net:
        boxes = Boxes(HIERARCHY, INSTANCE)
        host = Host(Settings(tables, INSTANCE, str(tmp_path), own_watchdog), net, boxes)
        yield host
        host.close()
        boxes.close()


@pytest.fixture
async def member(host: Host) -> Host:
    """The host, once it acts and its sandbox speaks."""
    await eventually(lambda: host.is_open, "the host to act")
    await host.speaks()
    return host


async def _is_silent_until_it_joins_again(host: Host, other: Other, resume: Callable[[], None]) -> None:
    at, lost = await other.takes_over()
    await host.was_silent(at)
    resume()
    await eventually(lambda: host.compared[-1][1] > lost.incarnation + 1, "the host to join again")
    await host.speaks()
    joined = next(when for when, incarnation in host.compared if incarnation > lost.incarnation)
    first = next(when for when in host.heard if when > at)
    assert joined < first, "a sandbox runs only after the epochs were compared"


async def test_a_host_whose_processes_were_all_stopped_for_longer_than_its_lease(member: Host, other: Other) -> None:
    pids = (member.server.pid, member.watchdog, member.sandbox.pid)
    member.signal(signal.SIGSTOP, *pids)
    await _is_silent_until_it_joins_again(member, other, lambda: member.signal(signal.SIGCONT, *pids))


async def test_a_host_whose_server_was_stopped(member: Host, other: Other) -> None:
    member.signal(signal.SIGSTOP, member.server.pid)
    await _is_silent_until_it_joins_again(member, other, lambda: member.signal(signal.SIGCONT, member.server.pid))


async def test_a_host_whose_server_was_killed(member: Host, other: Other) -> None:
    member.signal(signal.SIGKILL, member.server.pid)
    member.server.wait()
    at, _ = await other.takes_over()
    assert member.boxes.freezer.is_frozen(), "by the watchdog"
    await member.was_silent(at)
    member.restart_server()
    await eventually(lambda: member.is_open, "the next server to act")
    await member.speaks()


async def test_a_host_whose_watchdog_was_killed_gets_another(member: Host) -> None:
    before, spare = member.watchdog, member.spare
    member.signal(signal.SIGKILL, before)
    await eventually(lambda: member.watchdog != before and member.is_open, "another watchdog to watch")
    await eventually(lambda: member.spare not in (0, spare), "another spare")
    await member.speaks()
    assert member.is_open, "the one before has fenced nothing"


@pytest.mark.parametrize("own_watchdog", [False])
async def test_a_watchdog_that_is_a_unit_closes_its_host_and_lets_it_join_again(host: Host, other: Other) -> None:
    first = host.start_watchdog()
    await eventually(lambda: host.is_open, "the host to act")
    host.signal(signal.SIGKILL, first.pid, host.server.pid)  # as whatever ends all of a service but its units' restart
    first.wait()
    host.server.wait()
    with host.start_watchdog() as second:
        at, _ = await other.takes_over()
        assert host.boxes.freezer.is_frozen(), "by the next watchdog"
        await host.was_silent(at)
        host.restart_server()
        await eventually(lambda: host.is_open, "the next server to act")
        assert host.watchdog == second.pid
        second.terminate()
    with host.start_watchdog() as third:
        await eventually(lambda: host.watchdog == third.pid and host.is_open, "the host to join again")
        await host.speaks()
        third.kill()


async def test_a_host_whose_watchdog_and_server_were_killed_at_once_is_frozen_by_the_spare(
    member: Host, other: Other
) -> None:
    pids = (member.watchdog, member.server.pid)
    await eventually(lambda: member.spare, "a spare")
    member.signal(signal.SIGSTOP, *pids)  # so that neither sees the other's end
    killed = boot_seconds()
    member.signal(signal.SIGKILL, *pids)
    member.server.wait()
    taking = asyncio.create_task(other.takes_over())
    await eventually(member.boxes.freezer.is_frozen, "the sandboxes to be frozen")
    assert boot_seconds() - killed < BUDGET.lease, "before another host could have taken over"
    at, _ = await taking
    assert member.boxes.freezer.is_frozen()
    await member.was_silent(at)
    assert not member.spare, "it has done its work"
    member.restart_server()
    await eventually(lambda: member.is_open, "the next server to act")
    await member.speaks()


@contextmanager
def _refusing(tables: str) -> Iterator[None]:
    """The database ends all connections, and takes no new one."""
    given = conninfo_to_dict(tables)
    place = Path(str(given["host"]))
    socket, aside = place / f".s.PGSQL.{given['port']}", place / "aside"
    with psycopg.connect(tables, autocommit=True) as connection:
        socket.rename(aside)
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    yield
    aside.rename(socket)


@contextmanager
def _silent(tables: str) -> Iterator[None]:
    """The database says nothing any more."""
    place = Path(str(conninfo_to_dict(tables)["host"]))
    first = (place / "data/postmaster.pid").read_text().split()[0]
    pids = [int(first), *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("away", [_refusing, _silent])
async def test_a_host_without_its_database_is_silent_and_comes_back_by_itself(
    member: Host, tables: str, away: Callable[[str], AbstractContextManager[None]]
) -> None:
    before = member.compared[-1][1]
    with away(tables):
        await eventually(lambda: not member.acts, "the server to fence itself")
        await eventually(member.boxes.freezer.is_frozen, "the sandboxes to be frozen")
        await member.was_silent(boot_seconds())
    await eventually(lambda: member.is_open and member.compared[-1][1] > before, "the host to join again")
    await member.speaks()


async def test_a_server_without_a_watchdog_does_not_act_for_long(member: Host) -> None:
    member.signal(signal.SIGSTOP, member.watchdog)
    await eventually(lambda: not member.acts, "the server to fence itself")
    await eventually(member.boxes.freezer.is_frozen, "the sandboxes to be frozen")


async def test_a_watchdog_that_is_asked_to_end_fences_first(member: Host) -> None:
    member.signal(signal.SIGSTOP, member.server.pid)  # or it would start another
    member.signal(signal.SIGTERM, member.watchdog)
    await eventually(member.boxes.freezer.is_frozen, "the sandboxes to be frozen")
