"""A host of a fleet as services of systemd on Debian 13. Only scripts/test --vm runs these tests: see on_systemd.py.

Where the processor is emulated, a renewal of the lease may come too late. Then the host is fenced for a moment, and
requests are asked again.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import pytest

from buntime.fleet.lease_file import LeaseFile
from tests.acceptance.client import Client, Reply, Session
from tests.contracts.postgres import postgres
from tests.ports import free_port
from tests.vm import service as systemd
from tests.vm.service import PATIENCE, Service, run
from tests.waiting import until

SERVER, WATCHDOG, DRAIN = "buntime", "buntime-watchdog", "buntime-drain"
FENCED = 503


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with postgres(free_port()) as database:
        database.create("buntime")
        with systemd.fleet_of_one({"BUNTIME_STORE": database.address("buntime")}) as service:
            yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    return service.new_client("enterprise")


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    session = Session(client, str(_answered(lambda: client.create(resourceLimits={"cpu": 1})).done()["sessionId"]))
    yield session
    _answered(session.delete).done()


def _answered(ask: Callable[[], Reply]) -> Reply:
    """Asks until the host is not fenced."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError, HTTPException):  # a fenced host resets connections
            reply = ask()
            if reply.status != FENCED or time.monotonic() > deadline:
                return reply
        assert time.monotonic() < deadline, "the host does not answer"
        time.sleep(1)


def _output(session: Session, command: str) -> str:
    result = _answered(lambda: session.execute(command=command, timeout=60)).done()
    assert result["exitCode"] == 0, result
    return str(result["stdout"])


def _listed(service: Service) -> tuple[dict[str, Any], dict[str, int]]:
    """The host, and the sessions of nobody."""
    told = json.loads(service.command("hosts", "list", "--json"))
    (host,) = told["hosts"]
    return host, told["nobody"]


def _watches(service: Service) -> int:
    """The pid of the watchdog that has told of itself last; 0: none."""
    file = LeaseFile(service.config.lease_file)
    try:
        told = file.watched()
    finally:
        file.close()
    return told.pid if told else 0


def _background(session: Session) -> str:
    """The pid inside of a process that goes on."""
    _output(session, "pgrep -x sleep || (sleep 100000 & true)")
    return _output(session, "pgrep -x sleep")


def _waits_for(seen: Callable[[], object], what: str) -> None:
    until(seen, what, PATIENCE)


def test_the_units_are_up_and_the_host_has_a_lease(service: Service) -> None:
    for unit in (SERVER, WATCHDOG, DRAIN):
        assert run("systemctl", "is-active", unit) == "active"
    _waits_for(lambda: _listed(service)[0]["state"] == "active", "a host that is active")
    host, _ = _listed(service)
    assert host["lease"]["renewals"] > 0
    assert _watches(service) == service.main_pid(WATCHDOG)


def test_a_session_runs_commands(session: Session) -> None:
    assert _output(session, "echo kept > file; cat file; id -u") == "kept\n0\n"


def test_a_watchdog_that_is_killed_is_followed_by_another_and_sessions_go_on(
    service: Service, session: Session
) -> None:
    pid, before = _background(session), service.main_pid(WATCHDOG)
    os.kill(before, signal.SIGKILL)
    _waits_for(lambda: service.main_pid(WATCHDOG) not in (0, before), "systemd starts it again")
    _waits_for(lambda: _watches(service) == service.main_pid(WATCHDOG), "the next one watches")
    assert _output(session, "pgrep -x sleep") == pid


def test_a_server_that_is_killed_comes_back_and_thaws_its_sessions(service: Service, session: Session) -> None:
    pid, before = _background(session), service.main_pid()
    watchdog = service.main_pid(WATCHDOG)
    os.kill(before, signal.SIGKILL)
    _waits_for(lambda: service.main_pid() not in (0, before), "systemd starts it again")
    service.wait_ready()
    assert _output(session, "pgrep -x sleep") == pid
    assert service.main_pid(WATCHDOG) == watchdog


def test_a_stop_of_the_watchdog_fences_the_host_until_it_is_back(service: Service, session: Session) -> None:
    pid = _background(session)
    run("systemctl", "stop", WATCHDOG)
    _waits_for(lambda: session.client.status(f"/sessions/{session.id}") in (None, FENCED), "a host that is fenced")
    run("systemctl", "start", WATCHDOG)
    service.wait_ready()
    assert _output(session, "pgrep -x sleep") == pid


def test_a_stop_of_the_drain_unit_gives_all_sessions_up_and_a_start_takes_them_again(
    service: Service, session: Session
) -> None:
    _output(session, "echo kept > file")
    run("systemctl", "stop", DRAIN)
    host, nobody = _listed(service)
    assert host["draining"]
    assert not any(host["sessions"].values())
    assert nobody == {"active": 0, "idle": 0, "deepSleep": 1, "unsaved": 0}
    run("systemctl", "start", DRAIN)
    assert not _listed(service)[0]["draining"]
    assert _output(session, "cat file") == "kept\n"
