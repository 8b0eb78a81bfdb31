"""GET /files/watch on real sandboxes."""

import time
from collections.abc import Iterator
from threading import Thread

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.events import Event, Events, watch
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox


def begun(events: Events) -> Iterator[Event]:
    """Yields the events after `ready`."""
    told = iter(events)
    assert next(told) == ("ready", {})
    return told


def until_change_of(path: str, told: Iterator[Event]) -> list[str]:
    """Returns the changes up to this one, as `event path` or `event from>path`."""
    seen: list[str] = []
    for name, data in told:
        assert name == "change", data
        if data["path"] == path:
            return seen
        seen.append(f"{data['event']} {data['from'] + '>' if 'from' in data else ''}{data['path']}")
    raise AssertionError(seen)


def test_what_runs_and_requests_do_is_told(session: Session) -> None:
    session.output("mkdir -p src node_modules/x; echo 1 > src/old")
    with watch(session) as events:
        told = begun(events)
        session.write("src/new/a.ts", "1").done()
        session.output("echo 2 >> src/old; mv src/old src/older; touch node_modules/x/y; rm src/older; touch end")
        seen = until_change_of("end", told)
        assert [each for each in seen if "src/old" not in each] == ["created src/new", "created src/new/a.ts"]
        assert {"renamed src/old>src/older", "deleted src/older"} <= set(seen)
        session.write("src/new/a.ts", "2").done()
        session.write("end2", "2").done()
        assert [each for each in until_change_of("end2", told) if each != "changed end"] == ["changed src/new/a.ts"]


def test_a_project_that_is_made_at_once_is_told_whole(session: Session) -> None:
    with watch(session) as events:
        told = begun(events)
        session.output(
            "for d in $(seq 40); do mkdir -p p/$d; for f in $(seq 20); do : > p/$d/$f; done; done; touch end"
        )
        files = {each for each in until_change_of("end", told) if each.startswith("created") and each.count("/") == 2}
        assert len(files) == 800


def test_files_directories_and_what_is_neither(session: Session) -> None:
    session.output("echo 1 > f; mkfifo fifo; ln -s loop loop; mkdir d; ln -s d link")
    for path, status, code in (
        ("none", 404, "file_not_found"),
        ("f/x", 409, "file_conflict"),
        ("loop", 409, "file_conflict"),
    ):
        with watch(session, path) as events:
            assert events.status == status
            events.refusal().refused(status, code)
    with watch(session, "f") as file, watch(session, "fifo") as fifo, watch(session, "link") as link:
        told = begun(file), begun(fifo), begun(link)
        session.output(": > f; rm fifo; : > d/x")
        assert next(told[0])[1] == {"event": "changed", "path": "f", "type": "file"}
        assert next(told[1])[1] == {"event": "deleted", "path": "fifo"}
        assert next(told[2])[1] == {"event": "created", "path": "link/x", "type": "file"}
    with watch(session, "d") as events:
        told_of = begun(events)
        session.output("rm -r d")
        assert [name for name, _ in told_of] == ["change", "change", "error"]


def test_a_watch_lets_the_session_sleep_and_goes_on_after_it(session: Session) -> None:
    with watch(session) as events:
        told = begun(events)
        ask_to_sleep(session, "idle").done()
        assert state(session) == "idle"
        wake(session).done()
        session.output("true > after")
        assert next(told)[1]["path"] == "after"
        deep_sleep(session)
        name, error = next(told)
        assert (name, error["code"], error["details"]) == ("error", "invalid_state", {"reason": "deep_sleep"})
        assert list(told) == []


def test_a_watch_ends_with_the_guest_and_with_the_session(server: Server, paid: Client) -> None:
    session = paid.open()
    with watch(session) as events:
        told = begun(events)
        traces.kill_sandbox(server.config, session.id)
        assert [(name, data["code"]) for name, data in told] == [("error", "unavailable")]
    session.output("echo works")
    with watch(session) as events:
        told = begun(events)
        session.delete().done()
        assert [(name, data["code"]) for name, data in told] == [("error", "session_not_found")]


MANY = """
import os
for _ in range(15):
    os.mkdir("d" * 230)
    os.chdir("d" * 230)
for n in range(10_000):
    open(f"{n}", "w").close()
    os.rename(f"{n}", "y")
    os.unlink("y")
"""


def test_more_than_can_be_told_is_an_overflow_and_costs_the_server_no_memory(session: Session) -> None:
    """The events are about 100 MB, and all sockets on the way hold less than 50 MB."""
    with watch(session, small=True) as events:
        told = begun(events)
        session.write("many.py", MANY).done()
        session.output("python3 many.py", timeout=120)
        names: list[str] = []
        reading = Thread(target=lambda: names.extend(_names_until_end(told)))
        reading.start()
        while reading.is_alive():  # changes before the overflow event are part of the overflow
            session.output("rm -f end; sleep 0.3; touch end")
        assert "overflow" in names
        assert len(names) < 20_000


def _names_until_end(told: Iterator[Event]) -> Iterator[str]:
    for name, data in told:
        yield name
        if data["path"] == "end":
            return


def test_what_was_watched_by_one_who_left_is_watched_no_more(session: Session) -> None:
    def instances() -> int:
        return int(session.output("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c inotify || true"))

    before = instances()
    opened = [watch(session) for _ in range(5)]
    for each in opened:
        begun(each)
    time.sleep(0.1)
    for each in opened:
        each.close()
    until(lambda: instances() == before, "all watches to end")
