"""What deploy/systemd/fleet promises, on a real systemd: the watchdog outlives the server, and a drain comes before."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.keeping_spare import spare_of
from buntime.fleet.lease_file import LeaseFile, Shown
from tests.deploy.systemd import Systemd, systemd
from tests.waiting import until

pytestmark = pytest.mark.root

SERVER, WATCHDOG, DRAIN = "buntime.service", "buntime-watchdog.service", "buntime-drain.service"
DRAINS = "hosts drain here --within 60 --wait"


class Host:
    """A machine with systemd, whose server has a lease."""

    def __init__(self, systemd: Systemd) -> None:
        self.systemd = systemd
        self.file = LeaseFile(systemd.directory / "lease")
        self.file.show(Shown(1, boot_seconds() + 600))

    @property
    def fenced(self) -> bool:
        return (self.systemd.directory / "fenced").exists()

    @property
    def watchdog(self) -> int:
        """The pid of the one that watches; 0: none."""
        told = self.file.watched()
        return told.pid if told and told.incarnation == 1 and _lives(told.pid) else 0

    def start(self, *units: str) -> None:
        self.systemd.ctl("start", *units)
        until(lambda: self.watchdog, "a watchdog")


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with systemd(tmp_path) as running:
        host = Host(running)
        yield host
        host.file.close()


def test_the_server_brings_its_watchdog_up_and_starts_none_itself(host: Host) -> None:
    host.start(SERVER)
    assert host.watchdog == host.systemd.pid(WATCHDOG)
    assert host.systemd.ctl("show", "--property=Environment", "--value", SERVER) == "BUNTIME_OWN_WATCHDOG=0"


def test_a_restart_of_the_server_leaves_the_watchdog_and_nginx_alone(host: Host) -> None:
    host.start(SERVER)
    watchdog, server = host.watchdog, host.systemd.pid(SERVER)
    nginx = int((host.systemd.directory / "nginx").read_text())
    host.systemd.ctl("restart", SERVER)
    assert host.systemd.pid(SERVER) != server
    assert host.watchdog == watchdog
    assert _lives(nginx), "the server ends nginx when requests have been answered"
    host.systemd.ctl("stop", SERVER)
    assert host.watchdog == watchdog
    assert not host.fenced


def test_a_kill_of_all_that_the_server_has_leaves_the_watchdog_which_fences(host: Host) -> None:
    host.start(SERVER)
    host.systemd.ctl("kill", "--kill-whom=all", "--signal=KILL", SERVER)
    host.file.show(Shown(1, boot_seconds()))  # no renewal comes
    until(lambda: host.fenced, "the fence")


def test_a_watchdog_that_is_killed_is_followed_by_another_however_often(host: Host) -> None:
    host.start(SERVER)
    until(lambda: spare_of(host.file), "a spare")
    first = spare_of(host.file)
    for _ in range(7):  # more than a unit may start in ten seconds by default
        killed = host.watchdog
        os.kill(killed, signal.SIGKILL)
        until(lambda killed=killed: host.watchdog not in (0, killed), "the next one")  # type: ignore[misc]
    assert not host.fenced
    until(lambda: spare_of(host.file) not in (0, first), "a spare of the next one")
    assert not _lives(first)
    assert host.systemd.ctl("is-active", SERVER) == "active"


def test_a_watchdog_that_systemd_does_not_start_again_is_followed_by_its_spare(host: Host) -> None:
    host.start(SERVER)
    until(lambda: spare_of(host.file), "a spare")
    spare, watchdog = spare_of(host.file), host.watchdog
    (host.systemd.directory / "opt/.venv/bin/buntime").unlink()  # as in the middle of an upgrade
    host.file.show(Shown(1, boot_seconds() + 1))
    os.kill(watchdog, signal.SIGKILL)
    host.systemd.ctl("stop", WATCHDOG)  # which has no watchdog to ask any more
    until(lambda: not _lives(spare), "the end of the spare, when it has fenced the host")
    told = host.file.watched()
    assert told
    assert (told.fenced, told.pid) == (1, spare)


def test_a_stop_of_the_watchdog_fences_the_host_and_says_so_to_the_server(host: Host) -> None:
    host.start(SERVER)
    until(lambda: spare_of(host.file), "a spare")
    host.systemd.ctl("stop", WATCHDOG)
    assert host.fenced
    assert not spare_of(host.file)
    told = host.file.watched()
    assert told
    assert told.fenced == 1


def test_the_watchdog_gets_no_password(host: Host) -> None:
    host.systemd.ctl("set-environment", "BUNTIME_STORE=postgresql://buntime:secret@db/buntime", "BUNTIME_PORT=8000")
    host.start(SERVER)
    environment = Path(f"/proc/{host.watchdog}/environ").read_bytes()
    assert b"BUNTIME_PORT=8000" in environment
    assert b"secret" not in environment


def test_a_machine_that_stops_drains_before_its_server_ends(host: Host) -> None:
    host.start(SERVER, DRAIN)
    assert "hosts resume here" in host.systemd.calls
    host.systemd.ctl("restart", SERVER)
    assert DRAINS not in host.systemd.calls, "a restart of the server drains nothing"
    server = host.systemd.pid(SERVER)
    host.systemd.hold_drain()
    host.systemd.ctl("exit", "--no-block")
    until(lambda: DRAINS in host.systemd.calls, "the drain")
    assert host.systemd.pid(SERVER) == server, "the server runs while the host drains"
    host.systemd.end_drain()
    host.systemd.process.wait()
    assert not _lives(server)


def test_the_drain_ends_at_the_time_of_its_unit(host: Host) -> None:
    told = host.systemd.ctl("show", "--property=TimeoutStopUSec", "--value", DRAIN)
    assert told == "15min"
