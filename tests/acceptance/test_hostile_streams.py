"""A session ends, stops, replaces or misleads its guest while streams are open. Only that session is affected.

Its streams end with a typed error or event. Its next request recovers. Calls of other sessions stay quick.
"""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.events import Events, stream, watch
from tests.acceptance.hostile import (
    all_of,
    assault_on_the_guest,
    context_of,
    follow,
    has_lied,
    last_of,
    others_stay_quick,
    process_of,
    recovers,
    stop_the_guest,
    take_the_guests_place,
    until_exited,
)
from tests.acceptance.server import Server
from tests.acceptance.test_terminals import TerminalUser, open_terminal
from tests.waiting import until

pytestmark = pytest.mark.sandbox

LYING_SECONDS = 3.0


# --- open streams ---


class Open:
    """Opens one stream of each kind in a session."""

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
        self.terminal = TerminalUser(stack.enter_context(open_terminal(session)))
        query = f"/files/content?sessionId={session.id}&path=big"
        self.download = stack.enter_context(Events(session.client, "GET", query, small=True))
        assert self.download.status == 200
        self._pool = stack.enter_context(ThreadPoolExecutor(8))
        self.upload = self._pool.submit(upload_slowly, session)
        self.ends = {name: self._pool.submit(last_of, answer) for name, answer in self.events.items()}

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


def upload_slowly(session: Session) -> Reply:
    """Uploads slowly until the server refuses the rest."""
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
        head, _, rest = all_of(raw).partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), {}, rest)


@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_guest_that_ends_or_stops_ends_its_sessions_streams_in_words(
    server: Server, victim: Session, neighbour: Session, how: str
) -> None:
    with ExitStack() as stack:
        opened = Open(victim, stack)
        assault = assault_on_the_guest(victim, how)
        with others_stay_quick(server, neighbour):
            if how == "end":
                victim.execute(command=assault, timeout=2).refused(409, "invalid_state")
            else:
                stop_the_guest(victim)
            recovers(victim)
            opened.have_ended_in_words()
    recovers(victim)
    look = _processes(victim)
    assert look[0]["status"] == "lost"
    assert (look[0]["exitCode"], look[0]["reason"]) == (None, "runtime_ended")


def _processes(session: Session) -> list[dict[str, Any]]:
    return list(session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["processes"])


# --- lies of a guest ---


def _typed(answer: Events) -> str:
    """Returns the error code with which the request ends."""
    with answer, suppress(ConnectionError):
        if answer.status != 200:
            return str(answer.refusal().error["code"])
        name, content = last_of(answer)
        return str(content.get("code", name))
    return "broken off"


LIES: dict[str, tuple[str, str, Callable[[Session, dict[str, str]], Events]]] = {
    f"{how} to {name}": (where, how, ask)
    for name, where, hows, ask in (
        (
            "a watch",
            "/files/watch",
            ("noise", "garbage", "garbage frames", "deep", "deep frames", "half a frame", "losses"),
            lambda s, _: watch(s),
        ),
        (
            "who follows logs",
            "/processes/logs",
            ("garbage frames", "deep frames", "crumbs", "entries", "flood"),
            lambda s, known: follow(s, known["process"]),
        ),
        (
            "a run in a context",
            "/contexts/run",
            ("garbage frames", "deep frames", "crumbs", "shows", "flood"),
            lambda s, known: stream(s, code="1", contextId=known["context"], timeout=5),
        ),
        (
            "a run",
            "/run",
            ("noise", "garbage frames", "deep frames", "crumbs", "flood"),
            lambda s, _: stream(s, command="true", timeout=5),
        ),
    )
    for how in hows
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_hurts_the_liar_alone(server: Server, victim: Session, neighbour: Session, lie: str) -> None:
    where, how, ask = LIES[lie]
    known = {"process": process_of(victim, "sleep 600"), "context": context_of(victim)}
    take_the_guests_place(victim, "liar.py", where, how, known["context"])
    with others_stay_quick(server, neighbour):
        answers = [ask(victim, known) for _ in range(6)]
        with ThreadPoolExecutor(len(answers)) as pool:
            ends = [pool.submit(_typed, answer) for answer in answers]
            time.sleep(LYING_SECONDS)
            for end, answer in zip(ends, answers, strict=True):
                if not end.done():  # endless output, which is legitimate
                    with suppress(OSError):
                        answer.socket.shutdown(socket.SHUT_RDWR)
            told = {end.result(60) for end in ends}
    assert "internal_error" not in told, told
    assert _plain(victim).status != 500
    with suppress(AssertionError, OSError):
        traces.kill_sandbox(server.config, victim.id)
    recovers(victim)
    assert has_lied(victim)


def test_a_search_by_a_program_that_prints_without_end_takes_nobodys_time(
    server: Server, victim: Session, neighbour: Session
) -> None:
    victim.output("printf '#!/bin/sh\\nexec yes \"\"\\n' > /tmp/rg; chmod +x /tmp/rg; cp /tmp/rg /usr/bin/rg")
    query = {"sessionId": victim.id, "query": "x"}
    with others_stay_quick(server, neighbour):
        for _ in range(3):
            found = victim.client.call("GET", "/files/search", query=query).done()
            assert (found["matches"], found["truncated"]) == ([], True)
    recovers(victim)


ASKED = {  # of the API, and of the guest
    "/files/stat": "/files/stat",
    "/files/content": "/contents",
    "/files/list": "/files/list",
    "/processes/list": "/processes",
    "/contexts/list": "/contexts",
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("how", ["noise", "garbage", "deep"])
def test_a_lie_to_whatever_is_asked_is_no_error_of_ours(victim: Session, path: str, how: str) -> None:
    victim.write("asked", "asked").done()
    query = {"sessionId": victim.id}
    if path.startswith("/files"):
        query["path"] = "asked" if path == "/files/content" else "."
    take_the_guests_place(victim, "liar.py", ASKED[path], how)
    reply = victim.client.call("GET", path, query=query)
    assert reply.status in (409, 503), reply.shown()
    recovers(victim)
    assert has_lied(victim)


@pytest.mark.parametrize("name", ["ENOENT", "EMFILE", "ESRCH", "ESTALE"])
def test_a_guest_that_only_fails_does_not_keep_the_server_from_starting(servers: Servers, name: str) -> None:
    server = servers.start()
    client = server.new_client()
    liar, beside = client.open(), client.open()
    pid = beside.output("sleep 100000 & echo $!")
    take_the_guests_place(liar, "liar.py", "/", f"errno:{name}")
    server.kill()
    server.start()
    assert beside.output("pgrep -x sleep") == pid
    until(lambda: server.said().count("sandbox_not_adopted") == 1, "the end of the adoption")
    recovers(liar)


def _plain(session: Session) -> Reply:
    return session.client.call("GET", "/files/list", query={"sessionId": session.id})


# --- files on the session's disk ---

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


@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", DISKS)
def test_what_is_on_its_disk_hurts_it_alone(server: Server, victim: Session, neighbour: Session, what: str) -> None:
    ended = process_of(victim, "echo said")
    until_exited(victim, ended)
    victim.output(f"P={ended}; R={RECORDS}; set -e; {DISKS[what]}", timeout=60)
    with others_stay_quick(server, neighbour):
        for _ in range(2):  # first the guest that has already read the files, then a new one
            replies = _ask_everything(victim, ended)
            assert {reply.status for reply in replies} <= {200, 404, 409, 429, 503, 507}
            if what not in LISTED_NO_MORE:
                assert replies[0].done()["total"] > 0
            assert replies[-1].done()["stdout"] == "x\n"
            traces.kill_sandbox(server.config, victim.id)
            recovers(victim)
    victim.output("rm -rf /var/lib/buntime", timeout=100)
    later = process_of(victim, "echo again")
    until_exited(victim, later)
    query = {"sessionId": victim.id, "processId": later}
    page = victim.client.call("GET", "/processes/logs", query=query).done()
    assert [entry["data"] for entry in page["entries"]] == ["again\n"]


def _ask_everything(session: Session, process_id: str) -> list[Reply]:
    """Makes requests that read or write the files on the disk. Each answer must be regular."""
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
            assert last_of(answer)[0] in ("exit", "error")
        else:
            replies.append(answer.refusal())
    return [*replies, session.execute(command="echo x")]


def test_a_command_is_shown_up_to_a_character_that_is_whole(victim: Session) -> None:
    for length in (998, 999):
        ended = process_of(victim, "echo said #".ljust(length, "x") + "\N{GRINNING FACE}" * 9)
        until_exited(victim, ended)
    assert [len(one["command"]) for one in _processes(victim)] in ([1000, 999], [1000, 999][::-1])
