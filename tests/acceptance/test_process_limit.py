"""A run that hits the process limit ends completely, reports the limit, and leaves the session usable."""

import statistics
import time
from collections.abc import Callable

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.events import Events
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

MORE_THAN_A_SESSION_HAS = 700
RUNS, SLOWER, LEAST = 7, 20, 0.02  # with one CPU share per process, the ratio would be 100
FORKS = """
import os, sys, time
forked = 0
for _ in range(int(sys.argv[1])):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        forked += 1
    except OSError:
        pass
print(forked, flush=True)
"""
SPINS = """
import os, time
ends = time.monotonic() + 600
if os.fork() == 0:
    while time.monotonic() < ends:
        try: os.fork()
        except OSError: pass
time.sleep(1)
"""
THREADS = """
import threading, time
started = 0
for _ in range(700):
    try:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        started += 1
    except RuntimeError: pass
open("started", "w").write(str(started))
time.sleep(600)
"""
# uses only shell builtins, since the shell cannot fork; a slow machine needs a while to hit the limit
UNTIL_FULL = "until set -- /proc/[0-9]*; [ $# -gt 440 ]; do :; done"
BOMBS = {
    "a shell that pipes itself into itself": f"bomb() {{ bomb | bomb & }}; bomb; {UNTIL_FULL}; sleep 1",
    "processes with sessions of their own": f"python3 forks.py {MORE_THAN_A_SESSION_HAS}",
    "processes that never stop forking": "python3 spins.py",
    "threads": "rm -f started; python3 threads.py > log 2>&1 & until [ -s started ]; do sleep 0.05; done",
}


@pytest.fixture
def armed(session: Session) -> Session:
    for name, text in (("forks.py", FORKS), ("spins.py", SPINS), ("threads.py", THREADS)):
        session.write(name, text).done()
    return session


def _is_usable(server: Server, session: Session) -> None:
    """Asserts that the next command works, and that only parked processes run."""
    assert session.output(f"echo one{' | cat' * 30}") == "one\n"
    sandbox = traces.sandbox_of(server.config, session.id)
    deadline = time.monotonic() + 20
    while len(traces.session_processes(server.config, sandbox)) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_run_that_meets_the_limit_leaves_nothing_and_says_so(server: Server, armed: Session, bomb: str) -> None:
    result = armed.command(BOMBS[bomb], timeout=60)
    assert not result["timedOut"]
    assert result["processLimitExceeded"] is True
    _is_usable(server, armed)


def test_a_run_that_meets_the_limit_until_its_timeout_says_so(server: Server, armed: Session) -> None:
    result = armed.command("python3 spins.py & sleep 60", timeout=10)
    assert (result["timedOut"], result["processLimitExceeded"]) == (True, True)
    _is_usable(server, armed)


def test_code_in_a_prepared_process_that_meets_the_limit_says_so(server: Server, armed: Session) -> None:
    code = (
        "const run = Bun.spawn(['python3', 'forks.py', %s], {stdout: 'ignore'}); await run.exited; console.log('end')"
    )
    assert "processLimitExceeded" not in armed.code(code % "'5'")
    time.sleep(0.5)  # time to prepare the next process
    result = armed.code(code % f"'{MORE_THAN_A_SESSION_HAS}'")
    assert (result["stdout"], result["processLimitExceeded"]) == ("end\n", True)
    armed.output("pkill -f 'forks.py 5'")
    _is_usable(server, armed)


def test_a_run_that_only_timed_out_did_not_meet_the_limit(armed: Session) -> None:
    result = armed.command("while :; do true | true; done", timeout=1)
    assert result["timedOut"]
    assert "processLimitExceeded" not in result


def test_a_run_below_the_limit_keeps_its_background_processes(armed: Session) -> None:
    result = armed.command("python3 forks.py 400")
    assert result["stdout"] == "400\n"
    assert "processLimitExceeded" not in result
    assert armed.output("pgrep -fc 'python3 forks.py 400'") == "400\n"
    armed.output("pkill -f 'python3 forks.py 400'")


def test_a_run_beside_a_full_one_has_processes_left(armed: Session) -> None:
    """The limit of a run is lower than that of the session."""
    started = armed.client.call(
        "POST",
        "/processes/start",
        json_body={"sessionId": armed.id, "command": f"python3 forks.py {MORE_THAN_A_SESSION_HAS}; sleep 600"},
    ).done()
    query = {"sessionId": armed.id, "processId": started["processId"]}
    _until(lambda: armed.client.call("GET", "/processes/logs", query=query).done()["entries"] != [])
    assert armed.look().done()["activeProcesses"] > 440
    for _ in range(3):
        assert armed.output(f"echo one{' | cat' * 30}") == "one\n"
    assert armed.client.call("GET", "/processes/get", query=query).done()["status"] == "running"


def test_a_run_beside_processes_that_never_stop_forking_has_its_share_of_the_cpu(armed: Session) -> None:
    def median_run() -> float:
        started = time.monotonic()
        assert armed.output("echo one | cat") == "one\n"
        return time.monotonic() - started

    quiet = statistics.median(median_run() for _ in range(RUNS))
    command = "python3 spins.py; sleep 600"
    armed.client.call("POST", "/processes/start", json_body={"sessionId": armed.id, "command": command}).done()
    _until(lambda: armed.look().done()["activeProcesses"] > 440)
    beside = statistics.median(median_run() for _ in range(RUNS))
    assert beside < SLOWER * max(quiet, LEAST)


def test_what_an_answered_run_left_is_ended_when_it_meets_the_limit_later(server: Server, armed: Session) -> None:
    result = armed.command("(sleep 0.5; python3 spins.py) > /dev/null 2>&1 &")
    assert "processLimitExceeded" not in result
    _until(lambda: armed.look().done()["activeProcesses"] > 440)
    _is_usable(server, armed)


def test_a_streamed_run_that_meets_the_limit_says_so_in_its_result(server: Server, armed: Session) -> None:
    assert _streamed(armed)["processLimitExceeded"] is True
    _is_usable(server, armed)


def test_a_detached_run_that_meets_the_limit_is_ended_whole_and_says_so(server: Server, armed: Session) -> None:
    assert _streamed(armed, detach=True)["processLimitExceeded"] is True
    _is_usable(server, armed)


def test_a_context_that_meets_the_limit_ends(server: Server, armed: Session) -> None:
    client = armed.client
    made = client.call("POST", "/contexts/create", json_body={"sessionId": armed.id}).done()
    calm = armed.code("var kept = 7; 1", contextId=made["contextId"])
    assert "processLimitExceeded" not in calm
    code = "const run = Bun.spawn(['python3', 'forks.py', '700'], {stdout: 'pipe'}); await run.exited; kept"
    result = armed.code(code, contextId=made["contextId"], timeout=60)
    assert (result["processLimitExceeded"], result["contextSurvived"]) == (True, False)
    _is_usable(server, armed)
    armed.execute(code="kept", contextId=made["contextId"]).refused(409, "context_lost")


def test_two_runs_that_share_the_sessions_processes_are_told_apart(server: Server, paid: Client) -> None:
    """A run that left many processes without hitting a limit keeps them when another run hits the session's limit."""
    session = paid.open()
    session.write("forks.py", FORKS).done()
    assert session.output("python3 forks.py 200") == "200\n"
    result = session.command(f"python3 forks.py {MORE_THAN_A_SESSION_HAS}", timeout=60)
    assert result["processLimitExceeded"] is True
    assert session.output("pgrep -fc 'python3 forks.py 200'") == "200\n"
    session.output("pkill -f 'python3 forks.py 200'")
    _is_usable(server, session)
    session.delete().done()


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _streamed(session: Session, **fields: object) -> dict[str, object]:
    body = {
        "sessionId": session.id,
        "command": f"python3 forks.py {MORE_THAN_A_SESSION_HAS}",
        "stream": True,
        "timeout": 60,
        **fields,
    }
    with Events(session.client, "POST", "/execute", body) as events:
        name, data = [*events][-1]
    assert name == "result", data
    return dict(data)
