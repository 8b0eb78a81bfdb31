"""A session that ends, stops, replaces or misleads its guest while streams are open: only that session is hurt.

What it says is told with a typed error or event, its next request recovers, and others' calls beside it stay quick.
"""

import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.events import Event, Events, stream, watch
from tests.acceptance.server import Server
from tests.acceptance.test_terminals import Person, open_terminal

pytestmark = pytest.mark.sandbox

INSIDE = Path(__file__).with_name("inside")
GUEST = 2  # its pid in every session
MB = 1 << 20
MOST_MORE = 300 * MB  # of the server's memory, whatever a session says
SLOWER = 25  # times, at the worst, of another's call in the middle; machine and cores are shared with the attack
LEAST = 0.02  # seconds, below which a call is as quick as any


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its own: its memory is looked at."""
    with fresh_server(pool_size=2) as server:
        server.start()
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def enterprise(server: Server) -> Client:
    return server.new_client("enterprise")


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Iterator[Session]:
    session = server.new_client("enterprise").open()
    session.output("true")
    yield session
    session.delete().done()


@pytest.fixture
def victim(enterprise: Client) -> Iterator[Session]:
    session = enterprise.open()
    yield session
    session.delete().done()


def memory_of(server: Server) -> int:
    assert server._process is not None
    lines = Path(f"/proc/{server._process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def others_stay_quick(server: Server, neighbour: Session) -> Iterator[None]:
    """Looks and runs of a neighbour, beside the block as before it; and the server's memory."""

    def seconds(call: Callable[[], object]) -> float:
        started = time.monotonic()
        call()
        return time.monotonic() - started

    def look() -> None:
        neighbour.look().done()

    def run() -> None:
        assert neighbour.output("echo fine") == "fine\n"

    quiet = {call: statistics.median(seconds(call) for _ in range(5)) for call in (look, run)}
    before, ended = memory_of(server), threading.Event()

    def beside() -> tuple[dict[Callable[[], None], list[float]], int]:
        taken: dict[Callable[[], None], list[float]] = {look: [], run: []}
        most = 0
        while not ended.wait(0.1) or not taken[run]:
            for call, times in taken.items():
                times.append(seconds(call))
            most = max(most, memory_of(server))
        return taken, most

    with ThreadPoolExecutor(1) as pool:
        watching: Future[Any] = pool.submit(beside)
        try:
            yield
        finally:
            ended.set()
        taken, most = watching.result()
    for call, times in taken.items():
        typical = statistics.median(times)
        assert typical < SLOWER * max(quiet[call], LEAST), (call, quiet[call], sorted(times)[-5:])
        assert max(times) < 10, (call, sorted(times)[-5:])
    assert most - before < MOST_MORE, (before >> 20, most >> 20)


# --- what is open when it happens ---


def context_of(session: Session) -> str:
    return str(session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"])


def process_of(session: Session, command: str) -> str:
    body = {"sessionId": session.id, "command": command}
    return str(session.client.call("POST", "/processes/start", json_body=body).done()["processId"])


def follow(session: Session, process_id: str) -> Events:
    path = f"/processes/logs?sessionId={session.id}&processId={process_id}&follow=true"
    return Events(session.client, "GET", path)


class Open:
    """One of each kind of stream in a session."""

    def __init__(self, session: Session, stack: ExitStack) -> None:
        self._session = session
        session.output("head -c 300M /dev/zero > big")
        process = process_of(session, "while sleep 0.1; do echo more; done")
        context = context_of(session)
        loop = "for (;;) { console.log('more'); await Bun.sleep(100) }"
        self.events = {
            "run": stream(session, command="while sleep 0.1; do echo more; done", timeout=600),
            "context": stream(session, code=loop, contextId=context, timeout=600),
            "logs": follow(session, process),
            "watch": watch(session),
        }
        for answer in self.events.values():
            stack.enter_context(answer)
            assert answer.status == 200
        self.terminal = Person(stack.enter_context(open_terminal(session)))
        query = f"/files/content?sessionId={session.id}&path=big"
        self.download = stack.enter_context(Events(session.client, "GET", query, small=True))
        assert self.download.status == 200
        self._pool = stack.enter_context(ThreadPoolExecutor(8))
        self.upload = self._pool.submit(upload_slowly, session)
        self.ends = {name: self._pool.submit(_last_of, answer) for name, answer in self.events.items()}

    def have_ended_in_words(self) -> None:
        for name, end in self.ends.items():
            event, content = end.result(120)
            assert event in ("error", "result", "exit"), (name, event, content)
            if event == "error":
                assert content["code"] in ("invalid_state", "unavailable", "session_busy"), (name, content)
        told, code = self.terminal.end()
        assert told["type"] in ("exit", "error"), told
        assert code in (1000, 1011), code
        with suppress(ConnectionError):
            total = int(self.download._headers["content-length"])
            assert len(self.download._exactly(total)) == total
        reply = self.upload.result(120)
        assert reply.status in (409, 503), reply.shown()
        assert reply.error["code"]


def _last_of(answer: Events) -> Event:
    return deque(answer, maxlen=1)[0]


def upload_slowly(session: Session) -> Reply:
    """Until it is refused."""
    with socket.create_connection(("127.0.0.1", session.client.port)) as raw:
        raw.settimeout(120)
        size = 1 << 28
        raw.sendall(
            f"PUT /files/content?sessionId={session.id}&path=up HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
            f"Authorization: Bearer {session.client.key}\r\n\r\n".encode()
        )
        with suppress(OSError):
            for _ in range(4000):
                raw.sendall(bytes(256 << 10))
                time.sleep(0.05)
                raw.settimeout(0.001)
                with suppress(TimeoutError):
                    if raw.recv(1, socket.MSG_PEEK):
                        break
                raw.settimeout(120)
        raw.settimeout(120)
        head, _, rest = _all_of(raw).partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), {}, rest)


def _all_of(raw: socket.socket) -> bytes:
    """Of one answer with a length."""
    text = b""
    while part := raw.recv(65536):
        text += part
        head, found, rest = text.partition(b"\r\n\r\n")
        if found:
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            if len(rest) >= length:
                break
    return text


ASSAULTS = {
    "killed": f"kill -9 {GUEST}",
    "stopped": f"kill -STOP {GUEST}",
}


@pytest.mark.parametrize("how", ASSAULTS)
def test_a_guest_that_ends_or_stops_ends_its_sessions_streams_in_words(
    server: Server, victim: Session, neighbour: Session, how: str
) -> None:
    with ExitStack() as stack:
        opened = Open(victim, stack)
        with others_stay_quick(server, neighbour):
            reply = victim.execute(command=ASSAULTS[how], timeout=2)
            if how == "killed":
                reply.refused(409, "invalid_state")
            _recovers(victim)
            opened.have_ended_in_words()
    _recovers(victim)
    look = _processes(victim)
    assert look[0]["status"] == "lost"
    assert (look[0]["exitCode"], look[0]["reason"]) == (None, "runtime_ended")


def _recovers(session: Session) -> None:
    """By its next request at the latest."""
    replies = [session.execute(command="echo works") for _ in range(2)]
    assert replies[-1].done()["stdout"] == "works\n"


def _processes(session: Session) -> list[dict[str, Any]]:
    return list(session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["processes"])


# --- what a guest says that lies ---


def replace_guest(session: Session, where: str, how: str) -> None:
    session.write("/root/liar.py", (INSIDE / "liar.py").read_text()).done()
    session.command(f"(sleep 0.7; exec python3 /root/liar.py {where} '{how}') > /root/liar.log 2>&1 < /dev/null &")
    time.sleep(2)


def _typed(answer: Events) -> str:
    """The code of how it ends."""
    with answer:
        if answer.status != 200:
            return str(answer.refusal().error["code"])
        with suppress(ConnectionError):
            name, content = _last_of(answer)
            return str(content.get("code", name)) if content is not None else name
        return "broken off"


LIES: dict[str, tuple[str, str, Callable[[Session, dict[str, str]], Events]]] = {
    f"{how} to {name}": (where, how, ask)
    for name, where, hows, ask in (
        (
            "a watch",
            "/files/watch",
            ("garbage", "deep", "deep frames", "half a frame", "losses"),
            lambda s, _: watch(s),
        ),
        (
            "who follows logs",
            "/processes/logs",
            ("garbage", "deep frames", "crumbs", "entries"),
            lambda s, known: follow(s, known["process"]),
        ),
        (
            "a run in a context",
            "/contexts/run",
            ("garbage", "deep frames", "crumbs", "shows"),
            lambda s, known: stream(s, code="1", contextId=known["context"], timeout=5),
        ),
        ("a run", "/run", ("garbage", "deep frames", "crumbs"), lambda s, _: stream(s, command="true", timeout=5)),
    )
    for how in hows
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_hurts_the_liar_alone(server: Server, victim: Session, neighbour: Session, lie: str) -> None:
    where, how, ask = LIES[lie]
    known = {"process": process_of(victim, "sleep 600"), "context": context_of(victim)}
    replace_guest(victim, where, how)
    with others_stay_quick(server, neighbour):
        answers = [ask(victim, known) for _ in range(6)]
        with ThreadPoolExecutor(len(answers)) as pool:
            ends = [pool.submit(_typed, answer) for answer in answers]
            time.sleep(8)
            for end, answer in zip(ends, answers, strict=True):
                if not end.done():  # what goes on without end, as a program's output may
                    with suppress(OSError):
                        answer.socket.shutdown(socket.SHUT_RDWR)
            told = {end.result(60) for end in ends}
    assert "internal_error" not in told, told
    assert _plain(victim).status != 500
    with suppress(AssertionError):
        victim.execute(command=f"kill -9 {GUEST}", timeout=2)
    _recovers(victim)


def _plain(session: Session) -> Reply:
    return session.client.call("GET", "/files/list", query={"sessionId": session.id})


# --- what is on its disk ---

RECORDS = "/var/lib/buntime/processes"
DISKS = {
    "a FIFO for the record": "rm -rf $R/$P/record.json; mkfifo $R/$P/record.json",
    "a link to nowhere for the record": "ln -sf /proc/self/fd/999 $R/$P/record.json",
    "an endless file for the record": "rm $R/$P/record.json; ln -s /dev/zero $R/$P/record.json",
    "a gigabyte for the record": "truncate -s 1G $R/$P/record.json",
    "garbage for the record": "head -c 5000 /dev/urandom > $R/$P/record.json",
    "a record that is deep": "python3 -c 'print(\"[\"*60000)' > $R/$P/record.json",
    "a record of impossible numbers": """sed -i 's/"pid":[0-9]*/"pid":9007199254740991/' $R/$P/record.json""",
    "a record with a long command": (
        """python3 - $R/$P/record.json <<'E'\nimport json, sys\none = json.load(open(sys.argv[1]))\n"""
        """one |= {"command": "x" * 30000, "name": "y" * 20000, "status": "running", "exitCode": 5}\n"""
        """json.dump(one, open(sys.argv[1], "w"))\nE"""
    ),
    "a FIFO for the log": "rm $R/$P/*.log; mkfifo $R/$P/0.log",
    "an endless file for the log": "rm $R/$P/*.log; ln -s /dev/zero $R/$P/0.log",
    "a gigabyte for the log": "truncate -s 1G $R/$P/0.log",
    "garbage for the log": "head -c 500000 /dev/urandom > $R/$P/0.log",
    "a FIFO for everything": "rm -rf /var/lib/buntime; mkfifo /var/lib/buntime",
    "/proc for everything": "rm -rf /var/lib/buntime; ln -s /proc /var/lib/buntime",
    "itself for everything": "rm -rf /var/lib/buntime; ln -s /var/lib/buntime /var/lib/buntime",
    "a file for everything": "rm -rf /var/lib/buntime; echo > /var/lib/buntime",
    "a hundred thousand records": (
        """python3 -c 'import os\nfor n in range(100000): os.mkdir(f"/var/lib/buntime/processes/proc_{n:018}")'"""
    ),
    "many segments of a log": """python3 -c 'import sys\nfor n in range(1, 2000): open(f"'$R/$P'/{n}.log", "w")'""",
}


LISTED_NO_MORE = {what for what in DISKS if what.endswith("for everything")}


@pytest.mark.parametrize("what", DISKS)
def test_what_is_on_its_disk_hurts_it_alone(server: Server, victim: Session, neighbour: Session, what: str) -> None:
    ended = process_of(victim, "echo said")
    _until_exited(victim, ended)
    victim.output(f"P={ended}; R={RECORDS}; set -e; {DISKS[what]}", timeout=60)
    with others_stay_quick(server, neighbour):
        for _ in range(2):  # by the guest that has seen what was there, and by one that has not
            replies = _ask_everything(victim, ended)
            assert {reply.status for reply in replies} <= {200, 404, 409, 429, 503, 507}
            if what not in LISTED_NO_MORE:
                assert replies[0].done()["total"] > 0
            assert replies[-1].done()["stdout"] == "x\n"
            victim.execute(command=f"kill -9 {GUEST}", timeout=5)
            _recovers(victim)
    victim.output("rm -rf /var/lib/buntime", timeout=100)
    later = process_of(victim, "echo again")
    _until_exited(victim, later)
    query = {"sessionId": victim.id, "processId": later}
    page = victim.client.call("GET", "/processes/logs", query=query).done()
    assert [entry["data"] for entry in page["entries"]] == ["again\n"]


def _until_exited(session: Session, process_id: str) -> None:
    deadline = time.monotonic() + 60
    query = {"sessionId": session.id, "processId": process_id}
    while session.client.call("GET", "/processes/get", query=query).done()["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ask_everything(session: Session, process_id: str) -> list[Reply]:
    """Each answer is plain, and each reads or writes what is on the disk."""
    one = {"sessionId": session.id, "processId": process_id}
    call, mine = session.client.call, {"sessionId": session.id}
    replies = [
        call("GET", "/processes/list", query=mine),
        call("GET", "/processes/get", query=one),
        call("GET", "/processes/logs", query=one),
        call("POST", "/processes/input", json_body={**one, "data": "x"}),
        call("POST", "/processes/signal", json_body=one),
        call("POST", "/processes/start", json_body={**mine, "command": "echo x"}),
        call("GET", "/contexts/list", query=mine),
        call("POST", "/contexts/create", json_body=mine),
    ]
    with follow(session, process_id) as answer:
        if answer.status == 200:
            answer.socket.settimeout(60)
            assert _last_of(answer)[0] in ("exit", "error")
        else:
            replies.append(answer.refusal())
    return [*replies, session.execute(command="echo x")]


def test_a_command_is_shown_up_to_a_character_that_is_whole(victim: Session) -> None:
    for length in (998, 999):
        ended = process_of(victim, "echo said #".ljust(length, "x") + "\N{GRINNING FACE}" * 9)
        _until_exited(victim, ended)
    assert [len(one["command"]) for one in _processes(victim)] in ([1000, 999], [1000, 999][::-1])


# --- what a client does ---


def test_half_open_uploads_cost_little_and_no_more_than_the_plan_allows(
    server: Server, victim: Session, neighbour: Session
) -> None:
    head = (
        f"PUT /files/content?sessionId={victim.id}&path=up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        f"Authorization: Bearer {victim.client.key}\r\n\r\n0123456789"
    ).encode()
    with others_stay_quick(server, neighbour), ExitStack() as stack:
        for _ in range(400):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", victim.client.port)))
            raw.sendall(head)
        time.sleep(3)
        assert victim.output("echo fine") == "fine\n"
    assert victim.list().done()["total"] == 0


def test_storms_of_clients_that_leave(server: Server, victim: Session, neighbour: Session) -> None:
    process = process_of(victim, "while :; do echo more; sleep 0.05; done")
    asks: list[Callable[[], Events]] = [
        lambda: watch(victim),
        lambda: follow(victim, process),
        lambda: stream(victim, command="echo x; sleep 9"),
    ]
    with others_stay_quick(server, neighbour):
        for n in range(150):
            with asks[n % 3]() as answer:
                if n % 2:
                    assert answer.status in (200, 429)
    deadline = time.monotonic() + 60
    while not _watches(victim):
        assert time.monotonic() < deadline
    _recovers(victim)


def _watches(session: Session) -> bool:
    with watch(session) as answer:
        return answer.status == 200


@pytest.mark.parametrize(
    "path", ["/files/watch?", "/files/content?path=f&", "/files/archive?", "/processes/logs?follow=true&"]
)
def test_a_head_of_what_streams_ends_at_once(victim: Session, path: str) -> None:
    victim.write("f", "x").done()
    process = process_of(victim, "sleep 600")
    reply = victim.client.call(
        "HEAD", f"{path}sessionId={victim.id}" + (f"&processId={process}" if "logs" in path else ""), timeout=30
    )
    assert (reply.status, reply.body) == (200, b"")


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"


@pytest.mark.parametrize("path", ["/", "/execute", "/files/watch?sessionId={id}", "/healthz", "/sessions/{id}", "/x/y"])
def test_no_other_path_becomes_a_websocket(victim: Session, path: str) -> None:
    with _asked(victim, "GET " + path.format(id=victim.id), UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
        status = int(raw.recv(100).split()[1])
    assert status != 101
    assert status < 500


def test_terminals_of_clients_that_left_before_they_knew_of_them_are_none(victim: Session) -> None:
    for _ in range(10):
        with _asked(victim, f"GET /sessions/{victim.id}/terminal", UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")):
            pass
    deadline = time.monotonic() + 60
    while victim.command("pgrep -f 'bash -[i]'")["stdout"]:
        assert time.monotonic() < deadline


def test_nobody_elses_terminal_is_opened(victim: Session, neighbour: Session) -> None:
    stranger = Session(neighbour.client, victim.id)
    path = f"GET /sessions/{stranger.id}/terminal"
    with _asked(stranger, path, UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
        assert b"session_not_found" in _all_of(raw)
    with Person_at(victim) as mine:
        path = f"GET /sessions/{neighbour.id}/terminal?terminalId={mine.terminal}"
        with _asked(neighbour, path, UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
            assert b"terminal_not_found" in _all_of(raw)


@contextmanager
def Person_at(session: Session) -> Iterator[Person]:  # noqa: N802 - reads as a statement
    with open_terminal(session) as connection:
        yield Person(connection)


@contextmanager
def _asked(session: Session, line: str, headers: str, body: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", session.client.port)) as raw:
        raw.settimeout(60)
        head = f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.client.key}\r\n{headers}\r\n"
        raw.sendall(head.encode() + body)
        yield raw


SMUGGLED = b"GET /sessions HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
    ],
)
def test_requests_whose_end_is_two_things_are_refused(victim: Session, headers: str) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    line = f"PUT /files/content?sessionId={victim.id}&path=up"
    with _asked(victim, line, headers, body) as raw:
        raw.shutdown(socket.SHUT_WR)
        text = b""
        with suppress(OSError):
            while part := raw.recv(65536):
                text += part
    assert text.count(b"HTTP/1.1 ") <= 1 or text.count(b"HTTP/1.1 401") == 0, text
    assert text.split()[1] in (b"400", b"501", b"200"), text


@pytest.mark.parametrize("id_", ["1\n\nevent: x", "-1", "1e3", "9" * 30, "٣"])
def test_an_id_of_an_event_that_is_none_is_refused(victim: Session, id_: str) -> None:
    process = process_of(victim, "sleep 600")
    query: dict[str, object] = {"sessionId": victim.id, "processId": process, "follow": "true"}
    try:
        reply = victim.client.call("GET", "/processes/logs", query=query, headers={"Last-Event-ID": id_})
    except (ValueError, UnicodeError):
        return
    reply.refused(400, "invalid_request")


def test_names_with_line_breaks_break_no_line_of_an_answer(victim: Session) -> None:
    name = "a\r\nX-Evil: 1\r\n\r\nevent: evil\ndata: {}\n\n\u2028b"
    with watch(victim) as answer:
        assert answer.status == 200
        told = iter(answer)
        assert next(told)[0] == "ready"
        victim.write(name, "x").done()
        event, content = next(told)
        assert (event, content["path"].endswith(name)) == ("change", True)
    for path in ("/files/content", "/files/archive"):
        reply = victim.client.call("GET", path, query={"sessionId": victim.id, "path": name})
        assert reply.status == 200
        assert "x-evil" not in reply.headers
