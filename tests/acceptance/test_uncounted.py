"""Kernel memory that no cgroup counts: the server ends runs of a session that holds too much of it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session

pytestmark = pytest.mark.sandbox

PROGRAM = (Path(__file__).with_name("inside") / "uncounted.py").read_text()
MOST = 4096  # the limits on a session's sockets and on its locks
WAIT_SECONDS = 90  # a guard against hangs
LOCKS = ["events", "file", "left"]
REFUSED = """
import fcntl, os, socket, struct
file = os.open("/tmp/own", os.O_CREAT | os.O_RDWR)
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
for command in (36, 37, 38):  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
    try:
        print(fcntl.fcntl(file, command, lock))
    except OSError as refused:
        print(refused.strerror)
fcntl.fcntl(file, fcntl.F_SETLK, lock)
for family, level, option in ((2, 1, 37), (2, 1, 65), (2, 0, 11), (10, 41, 25)):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.setsockopt(level, option, 1)
    print(one.getsockopt(level, option))
"""


@pytest.fixture
def taker(paid: Client) -> Iterator[Session]:
    session = paid.open(resourceLimits={"memory": 1024, "cpu": 1})
    session.write("/root/uncounted.py", PROGRAM).done()
    yield session
    session.delete().done()


def _take(session: Session, way: str, count: int) -> None:
    session.command(f"python3 -u /root/uncounted.py {way} {count} > /tmp/said 2>&1 &")
    _wait_for(lambda: session.output("cat /tmp/said") != "")


def _is_taking(session: Session) -> bool:
    return session.output("pgrep -c -f '^python3 -u /root/uncounted.py' || true") != "0\n"


def _has_taken(session: Session) -> bool:
    return session.output("cat /tmp/said") == "begun\ntook all\n"


def _wait_until_ended(session: Session) -> None:
    _wait_for(lambda: not _is_taking(session))


def _wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _sockets(session: Session) -> int:
    return int(session.output("head -1 /proc/net/sockstat").split()[-1])


def test_a_run_with_more_sockets_than_a_session_may_have_is_ended(taker: Session) -> None:
    _take(taker, "answers", MOST + 1000)
    _wait_until_ended(taker)
    _wait_for(lambda: _sockets(taker) < 100)
    assert taker.output("echo fine") == "fine\n"


@pytest.mark.parametrize("way", LOCKS)
def test_a_run_with_more_locks_than_a_session_may_have_is_ended(taker: Session, way: str) -> None:
    _take(taker, way, 2 * MOST)
    _wait_until_ended(taker)
    assert taker.output("echo fine") == "fine\n"


def test_no_process_leaves_its_locks_to_another(taker: Session) -> None:
    _take(taker, "departed", 1)
    _wait_until_ended(taker)
    assert taker.output("cat /tmp/said") == "begun\nOperation not permitted\n"


def test_locks_without_a_process_are_unknown_and_queues_of_errors_stay_empty(taker: Session) -> None:
    taker.write("/root/refused.py", REFUSED).done()
    assert taker.output("python3 /root/refused.py").splitlines() == ["Invalid argument"] * 3 + ["0"] * 4
    assert taker.output("getent hosts missing.invalid || echo $?", timeout=10) == "2\n"


@pytest.mark.parametrize(("way", "count"), [("answers", 1000), *((way, 500) for way in LOCKS)])
def test_a_program_with_many_sockets_or_locks_goes_on_beside_one_with_too_many(
    taker: Session, paid: Client, way: str, count: int
) -> None:
    _take(taker, way, count)
    neighbour = paid.open(resourceLimits={"memory": 1024, "cpu": 1})
    try:
        neighbour.write("/root/uncounted.py", PROGRAM).done()
        _take(neighbour, way, 2 * MOST)  # makes the server check
        _wait_until_ended(neighbour)
        assert _has_taken(taker)
        assert _is_taking(taker)
    finally:
        neighbour.delete().done()
