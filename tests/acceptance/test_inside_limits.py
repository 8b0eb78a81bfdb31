"""A plan's limits on streams, processes, contexts and terminals: each is reported, and can be used again afterwards."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.events import Events, stream, watch
from tests.acceptance.server import Server
from tests.acceptance.sleeping import deep_sleep
from tests.acceptance.test_terminals import refused, terminal_user
from tests.waiting import until

pytestmark = pytest.mark.sandbox

HERE, EVERYWHERE = 3, 5  # limits of each kind, in a session and in an account
KINDS = ("streams", "processes", "contexts", "terminals")
LIMITS = {f"{kind}_per_{scope}": n for kind in KINDS for scope, n in (("session", HERE), ("account", EVERYWHERE))}


def limited(server: Server, **limits: int) -> Client:
    """Returns a client of an account with these limits. The other limits are generous."""
    settings = [f"--set={name}={number}" for name, number in limits.items()]
    account = server.cli("accounts", "create", "--plan", "enterprise", *settings)
    return server.client(server.cli("keys", "create", "--account", account))


@pytest.fixture
def sessions(server: Server) -> Iterator[tuple[Session, Session]]:
    """Yields two sessions of an account with low limits."""
    client = limited(server, **LIMITS)
    both = client.open(), client.open()
    yield both
    for session in both:
        session.delete().done()


def start_process(session: Session) -> Reply:
    return session.client.call("POST", "/processes/start", json_body={"sessionId": session.id, "command": "sleep 900"})


def create_context(session: Session) -> Reply:
    return session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id})


STARTS = {"processes": start_process, "contexts": create_context}


def end_process(session: Session, started: Any) -> None:
    body = {"sessionId": session.id, "processId": started["processId"], "signal": "SIGKILL"}
    session.client.call("POST", "/processes/signal", json_body=body).done()


def end_context(session: Session, started: Any) -> None:
    query = {"sessionId": session.id, "contextId": started["contextId"]}
    session.client.call("DELETE", "/contexts/delete", query=query).done()


ENDS: dict[str, Callable[[Session, Any], None]] = {"processes": end_process, "contexts": end_context}


def is_full(reply: Reply, limit: int, scope: str) -> None:
    details = reply.refused(429, "resource_limit_exceeded")
    assert (details["limit"], details["scope"], details["plan"]) == (limit, scope, "enterprise")
    assert details["resource"]
    assert str(limit) in reply.error["message"]


def there_is_room(start: Callable[[Session], Reply], session: Session, count: int = 1) -> None:
    """Asserts that exactly this many more can be started."""
    for _ in range(count):
        until(lambda: start(session).status == 200, "there to be room")
    start(session).refused(429, "resource_limit_exceeded")


@pytest.mark.parametrize("kind", ["processes", "contexts"])
def test_so_many_in_a_session_and_in_an_account(sessions: tuple[Session, Session], kind: str) -> None:
    (one, other), start = sessions, STARTS[kind]
    mine = [start(one).done() for _ in range(HERE)]
    is_full(start(one), HERE, "session")
    for _ in range(EVERYWHERE - HERE):
        start(other).done()
    is_full(start(other), EVERYWHERE, "account")
    ENDS[kind](one, mine[0])
    there_is_room(start, other)
    is_full(start(one), EVERYWHERE, "account")


@pytest.mark.parametrize("kind", ["processes", "contexts"])
def test_what_was_killed_or_slept_away_takes_no_room(sessions: tuple[Session, Session], kind: str) -> None:
    (one, _), start = sessions, STARTS[kind]
    started = [start(one).done() for _ in range(HERE)]
    if kind == "processes":
        one.output(f"kill -9 {started[1]['pid']}")
    else:
        _run_in(one, started[1]["contextId"], "process.kill(process.pid, 'SIGKILL')")
    there_is_room(start, one)
    deep_sleep(one)
    there_is_room(start, one, HERE)


def _run_in(session: Session, context_id: str, code: str) -> Reply:
    return session.execute(code=code, contextId=context_id)


@pytest.mark.parametrize("kind", ["processes", "contexts"])
def test_who_comes_at_once_gets_no_more(sessions: tuple[Session, Session], kind: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: STARTS[kind](sessions[n % 2]), range(12)))
    counts = [sum(reply.status == 200 for reply in replies[n::2]) for n in (0, 1)]
    assert max(counts) <= HERE
    assert sum(counts) <= EVERYWHERE
    assert {reply.status for reply in replies} == {200, 429}
    # A process may count twice while it starts. So a simultaneous start may be refused although there is room.
    for _ in range(EVERYWHERE - sum(counts)):
        here = min((0, 1), key=counts.__getitem__)
        until(lambda here=here: STARTS[kind](sessions[here]).status == 200, "there to be room")  # type: ignore[misc]
        counts[here] += 1
    for session in sessions:
        STARTS[kind](session).refused(429, "resource_limit_exceeded")


def test_terminals_are_counted_whether_somebody_looks_or_not(sessions: tuple[Session, Session]) -> None:
    one, other = sessions
    with ExitStack() as stack:
        users = [stack.enter_context(terminal_user(one)) for _ in range(HERE)]
        assert refused(one) == (429, "resource_limit_exceeded")
    names = [user.terminal for user in users]
    until(lambda: _refusal_of_terminal(one) == "session", "all clients to leave")  # the terminals still exist
    for _ in range(EVERYWHERE - HERE):
        with terminal_user(other):
            pass
    until(lambda: _refusal_of_terminal(other) == "account", "the account to be full")
    with terminal_user(one, terminalId=names[0]) as user:
        user.type("exit\n")
        assert user.end()[0]["type"] == "exit"
    until(lambda: _opens(other), "there to be room")
    assert _refusal_of_terminal(other) == "session"
    one.output("pkill -9 -f 'bash -[i]'")
    until(lambda: _opens(one), "there to be room again")


def _opens(session: Session) -> bool:
    return _refusal_of_terminal(session) is None


def _refusal_of_terminal(session: Session) -> str | None:
    """Returns the limit that refuses a terminal, or None if one more could be opened."""
    try:
        with terminal_user(session):
            return None
    except InvalidStatus as refusal:
        error = json.loads(refusal.response.body or b"")["error"]
    details = error["details"]
    assert error["code"] == "resource_limit_exceeded"
    return str(details["scope"] if details["resource"] == "terminals" else details["resource"])


STREAMS: dict[str, Callable[[Session], Events]] = {
    "run": lambda session: stream(session, command="sleep 900", timeout=600),
    "detached run": lambda session: stream(session, command="sleep 900", timeout=600, detach=True),
    "watch": watch,
}


@pytest.mark.parametrize("how", STREAMS)
def test_streams_are_counted_until_their_client_has_left(sessions: tuple[Session, Session], how: str) -> None:
    (one, other), opens = sessions, STREAMS[how]
    with ExitStack() as stack:
        opened = [stack.enter_context(_begun(opens(one))) for _ in range(HERE)]
        with watch(one) as answer:
            assert answer.status == 429
            is_full(answer.refusal(), HERE, "session")
        assert refused(one) == (429, "resource_limit_exceeded")  # an open terminal is a stream
        for _ in range(EVERYWHERE - HERE):
            stack.enter_context(_begun(watch(other)))
        with watch(other) as answer:
            assert answer.status == 429
            is_full(answer.refusal(), EVERYWHERE, "account")
        one.output("echo plain answers are none")
        opened[0].close()
        until(lambda: _watches(other), "there to be room")
    until(lambda: all(_watches(one) for _ in range(HERE)), "all clients to leave")


@contextmanager
def _begun(answer: Events) -> Iterator[Events]:
    with answer:
        assert answer.status == 200
        yield answer


def _watches(session: Session) -> bool:
    with watch(session) as answer:
        return answer.status == 200


def test_counts_are_right_after_a_restart_and_a_crash_of_the_server(servers: Servers) -> None:
    server = servers.start(BUNTIME_TICK_MS="50")
    client = limited(server, **LIMITS)
    session = client.open()
    for kind in STARTS:
        started = [STARTS[kind](session).done() for _ in range(HERE)]
        assert len(started) == HERE
    with terminal_user(session), terminal_user(session), terminal_user(session):
        assert refused(session) == (429, "resource_limit_exceeded")
    for ends in (server.stop, server.kill):
        ends()
        server.start()
        for start in STARTS.values():
            is_full(start(session), HERE, "session")
        until(lambda: _refusal_of_terminal(session) == "session", "the terminals to be counted")
    traces.kill_sandbox(server.config, session.id)
    session.execute(command="true")  # starts the guest again
    until(lambda: session.execute(command="true").status == 200, "the guest to run again")
    for start in STARTS.values():
        there_is_room(start, session, HERE)
    assert all(_opens(session) for _ in range(HERE))


def test_the_logs_of_a_session_keep_to_the_plan(server: Server) -> None:
    session = limited(server, log_mb_per_session=2).open(resourceLimits={"cpu": 1, "disk": 128})
    ids = []
    for n in range(4):
        command = f"head -c 3000000 /dev/zero | tr '\\0' {n}; echo; echo end"
        body = {"sessionId": session.id, "command": command}
        ids.append(session.client.call("POST", "/processes/start", json_body=body).done()["processId"])
        until(lambda: _look(session, ids[-1])["status"] == "exited", "the process to end")
    used = int(session.output("du -sb /var/lib/buntime/processes | cut -f1"))
    assert used < 3 << 20, used
    page = _logs(session, ids[-1])
    assert page["dropped"] > 0
    for process_id in ids:
        assert _look(session, process_id)["exitCode"] == 0
    session.delete().done()


def _look(session: Session, process_id: str) -> Any:
    query = {"sessionId": session.id, "processId": process_id}
    return session.client.call("GET", "/processes/get", query=query).done()


def _logs(session: Session, process_id: str) -> Any:
    query = {"sessionId": session.id, "processId": process_id, "cursor": 0, "limit": 100_000}
    return session.client.call("GET", "/processes/logs", query=query).done()
