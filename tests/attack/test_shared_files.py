"""What one session does to a file that all sessions have from the host does not affect another session.

Sessions share the read-only content of these files. They must not share an inode, for three reasons:
- A lock of one session would block another session.
- Each close of a file walks through all locks on its inode. One session once made every close of /dev/null on the host
  a thousand times slower.
- inotify would show one session what other sessions do.
"""

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
SEEN_SECONDS = 1.0  # after this time, events have arrived


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Session, Session]]:
    """Yields sessions of two accounts."""
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
    until(lambda: "held True" in log_of(one, process), "all files to be locked")
    outcome = json.loads(other.output("python3 /root/shared.py try"))
    assert [path for path, locked in outcome.items() if not locked] == []
    outcome = json.loads(one.output("python3 /root/shared.py try"))
    assert not any(outcome.values()), "locks must work within a session"


def test_no_session_sees_by_inotify_what_another_or_the_host_uses(pair: tuple[Session, Session]) -> None:
    one, other = pair
    process = process_of(one, "python3 /root/shared.py watch")
    until(lambda: "watching" in log_of(one, process), "the watch to start")
    time.sleep(SEEN_SECONDS)
    before = log_of(one, process)  # events of the session's own guest
    other.output("python3 /root/shared.py use")
    os.close(os.open("/dev/null", os.O_RDONLY))
    time.sleep(SEEN_SECONDS)
    assert log_of(one, process).removeprefix(before) == ""
    one.output("python3 /root/shared.py use")
    until(lambda: log_of(one, process) != before, "an event of its own session")
