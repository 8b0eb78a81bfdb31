"""Files that all sessions have from the host: what one session does to them, another does not meet.

Sessions share the content of these files, which nobody can change. They must not share the kernel's object behind it: a
lock on that would be in another's way, everybody who closes the file walks through all locks on it (one patient session
made each close of /dev/null on the whole host a thousand times slower), and inotify tells of everybody's use."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.acceptance.hostile import process_of
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PROGRAM = (Path(__file__).with_name("inside") / "shared.py").read_text()
SEEN_SECONDS = 1.0  # in which what is told has arrived


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Session, Session]]:
    """Of two accounts."""
    sessions = tuple(server.new_client("enterprise").open() for _ in range(2))
    for session in sessions:
        session.write("/root/shared.py", PROGRAM).done()
    yield sessions[0], sessions[1]
    for session in sessions:
        session.delete().done()


def log_of(session: Session, process: str) -> str:
    query = {"sessionId": session.id, "processId": process, "cursor": 0}
    entries = session.client.call("GET", "/processes/logs", query=query).done()["entries"]
    return "".join(entry["data"] for entry in entries)


def test_no_lock_of_one_session_is_in_the_way_of_another(pair: tuple[Session, Session]) -> None:
    one, other = pair
    process = process_of(one, "python3 /root/shared.py hold")
    until(lambda: "held True" in log_of(one, process), "all are locked")
    came = json.loads(other.output("python3 /root/shared.py try"))
    assert [path for path, locked in came.items() if not locked] == []
    came = json.loads(one.output("python3 /root/shared.py try"))
    assert not any(came.values()), "within a session locks are locks"


def test_no_session_sees_by_inotify_what_another_or_the_host_uses(pair: tuple[Session, Session]) -> None:
    one, other = pair
    process = process_of(one, "python3 /root/shared.py watch")
    until(lambda: "watching" in log_of(one, process), "it watches")
    time.sleep(SEEN_SECONDS)
    before = log_of(one, process)  # of its own runtime, which the guest of a session is, too
    other.output("python3 /root/shared.py use")
    os.close(os.open("/dev/null", os.O_RDONLY))
    time.sleep(SEEN_SECONDS)
    assert log_of(one, process).removeprefix(before) == ""
    one.output("python3 /root/shared.py use")
    until(lambda: log_of(one, process) != before, "it sees its own session's use")
