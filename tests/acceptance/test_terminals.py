"""Terminals through the edge, with real shells and full-screen programs."""

import hashlib
import json
import os
import secrets
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import assault_on_the_guest
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PATIENCE = 60.0  # seconds; a guard against a hang
PROMPT = b"# "


class TerminalUser:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen = b""
        self.messages: list[dict[str, Any]] = []
        self.receive()
        assert self.messages[0]["type"] == "ready"

    @property
    def terminal(self) -> str:
        return str(self.messages[0]["terminalId"])

    def type(self, text: str | bytes) -> None:
        self.connection.send(text.encode() if isinstance(text, str) else text)

    def resize(self, cols: int, rows: int) -> None:
        self.connection.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    def receive(self) -> None:
        message = self.connection.recv(timeout=PATIENCE)
        if isinstance(message, bytes):
            self.seen += message
        else:
            self.messages.append(json.loads(message))

    def sees(self, text: str | bytes) -> None:
        wanted = text.encode() if isinstance(text, str) else text
        while wanted not in self.seen:
            self.receive()

    def does(self, command: str) -> str:
        """Runs a command in a shell that is `plain`. Returns its output."""
        self.seen, mark = b"", secrets.token_hex(4)
        self.type(f"{command}; echo {mark[:4]}''{mark[4:]}\n")
        self.sees(f"{mark}\r\n")
        return self.seen.decode().removesuffix(f"{mark}\r\n").replace("\r\n", "\n")

    def plain(self) -> "TerminalUser":
        """Switches off echo, prompt and line editing. Returns the user."""
        self.sees(PROMPT)
        self.type("PS1='rea''dy ' exec bash --noediting --norc\n")
        self.sees("ready ")
        self.type("stty -echo; PS1=; echo qui''et\n")
        self.sees("quiet\r\n")
        return self

    def end(self) -> tuple[dict[str, Any], int | None]:
        with suppress(ConnectionClosed):
            while True:
                self.receive()
        return self.messages[-1], self.connection.close_code


def open_terminal(session: Session, **query: object) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{session.client.port}/sessions/{session.id}/terminal?{urlencode(query)}",
        additional_headers={"Authorization": f"Bearer {session.client.key}"},
        compression=None,
        max_size=None,
        open_timeout=PATIENCE,
        ping_interval=None,
        close_timeout=1,
    )


@contextmanager
def terminal_user(session: Session, **query: object) -> Iterator[TerminalUser]:
    with open_terminal(session, **query) as connection:
        yield TerminalUser(connection)


def drop_connection(user: TerminalUser) -> None:
    user.connection.socket.shutdown(socket.SHUT_RDWR)


def refused(session: Session, **query: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refusal:
        open_terminal(session, **query)
    response = refusal.value.response
    return response.status_code, json.loads(response.body or b"")["error"]["code"]


def test_a_shell_at_a_terminal_of_its_own(paid: Client) -> None:
    session = paid.open(env={"MINE": "yes"})
    with terminal_user(session, cols=91, rows=33, workingDir="/tmp") as user:
        user.plain()
        assert user.does("stty size; pwd; echo $MINE $TERM $COLORTERM") == (
            "33 91\n/tmp\nyes xterm-256color truecolor\n"
        )
        assert user.does("test -t 0 -a -t 1 -a -t 2 && echo all; [ -r /dev/tty ] && echo its own") == "all\nits own\n"
        user.resize(120, 40)
        assert user.does("stty size") == "40 120\n"
        assert "\x1b[" in user.does("ls --color=always -d /")
        user.type("exit 7\n")
        assert user.end() == ({"type": "exit", "exitCode": 7, "reason": None}, 1000)
    assert refused(session, terminalId=user.terminal) == (404, "terminal_not_found")
    assert refused(session, workingDir="/nowhere") == (404, "file_not_found")
    session.delete()


def test_keys_interrupt_stop_and_end_what_runs(session: Session) -> None:
    with terminal_user(session) as user:
        user.plain()
        user.type("sleep 1000\n")
        time.sleep(0.3)
        user.type("\x03")
        assert user.does("echo $?").endswith("130\n")
        user.type("cat\n")
        time.sleep(0.3)
        user.type("\x1a")
        user.sees("Stopped")
        assert "Stopped" in user.does("jobs")
        user.type("kill -9 %1; exec sleep 1000\n")
        time.sleep(0.3)
        user.type("\x03")
        assert user.end()[0]["exitCode"] == 130


def test_characters_of_any_size_go_both_ways(session: Session) -> None:
    text = "é€😀 漢字 שלום " * 50
    with terminal_user(session) as user:
        user.plain()
        assert user.does(f"printf %s '{text}' | tee u; echo") == text + "\n"
        assert session.text("u") == text


def test_a_megabyte_is_pasted_without_loss(session: Session) -> None:
    lines = "".join(f"{number} {secrets.token_hex(30)} é\n" for number in range(16_000))
    blob = os.urandom(1 << 20)
    with terminal_user(session) as user:
        user.plain()
        user.type("cat > lines; sha256sum lines\n")
        time.sleep(0.3)
        user.type(lines)
        user.type("\x04")
        user.sees(hashlib.sha256(lines.encode()).hexdigest())
        user.type(f"stty raw; head -c {len(blob)} > blob; stty -raw; sha256sum blob\n")
        time.sleep(0.3)
        for start in range(0, len(blob), 300_000):
            user.type(blob[start : start + 300_000])
        user.sees(hashlib.sha256(blob).hexdigest())


def test_full_screen_programs_are_drawn_and_drawn_again(session: Session) -> None:
    with terminal_user(session, cols=80, rows=24) as user:
        user.sees(PROMPT)
        user.type("vim story\n")
        user.sees("\x1b[?1049h")
        user.sees("~")
        user.type("iOnce upon a time \x1b")
        user.sees("Once upon")
        drop_connection(user)
    with terminal_user(session, terminalId=user.terminal, cols=100, rows=30) as again:
        assert again.messages[0]["resumed"] is True
        again.sees("\x1bc")
        again.sees("\x1b[30;1H")  # drawn for the new size
        again.type(":wq\r")
        again.sees("\x1b[?1049l")
        again.type("cat story\n")
        again.sees("Once upon a time \r\n")
        for program in ("htop", "less story"):
            again.seen = b""
            again.type(f"{program}\n")
            again.sees("\x1b[?1049h")
            time.sleep(0.5)
            again.type("q")
            again.sees("\x1b[?1049l")


def test_a_terminal_goes_on_without_a_client_and_others_take_over(session: Session) -> None:
    with terminal_user(session) as user:
        user.plain()
        user.type("(sleep 1; echo af''ter) & echo be''fore\n")
        user.sees("before\r\n")
        drop_connection(user)
    time.sleep(1.2)
    with terminal_user(session, terminalId=user.terminal) as second:
        second.sees("before\r\n")
        second.sees("after\r\n")
        with terminal_user(session, terminalId=user.terminal) as third:
            assert second.end() == ({"type": "detached"}, 1000)
            assert "mine\n" in third.does("echo mine")


def test_what_was_typed_before_leaving_is_done(session: Session) -> None:
    for number in range(5):
        with terminal_user(session) as user:
            user.type(f"touch left-{number}; exit\n")
    deadline = time.monotonic() + PATIENCE
    while session.output("ls left-* 2>/dev/null | wc -l") != "5\n":
        assert time.monotonic() < deadline, "the input had no effect"
        time.sleep(0.1)


def test_a_terminal_outlives_servers_that_stop_and_are_killed(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client("paid").open()
    with terminal_user(session) as user:
        user.plain()
        user.does("kept=here")
        server.kill()
        assert user.end()[1] in (None, 1006)
    server.start()
    with terminal_user(session, terminalId=user.terminal) as again:
        assert again.does("echo $kept").endswith("here\n")
        assert server.stop() == 0
        told, code = again.end()
        assert (told["type"], told["error"]["code"], code) == ("error", "unavailable", 1012)
    server.start()
    with terminal_user(session, terminalId=user.terminal) as last:
        assert last.does("echo $kept").endswith("here\n")


def test_a_sleeping_session_wakes_for_what_is_typed(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="2", BUNTIME_TICK_MS="100")
    session = server.new_client("paid").open()
    with terminal_user(session) as user:
        user.plain()
        deadline = time.monotonic() + PATIENCE
        while state(session) != "idle":
            assert time.monotonic() < deadline, "the session stays awake because of the open terminal"
            time.sleep(0.1)
        assert user.does("echo awake") == "awake\n"
        until(lambda: state(session) == "active", "the input to wake the session")
        assert ask_to_sleep(session, "idle").status == 200
        assert user.does("echo again") == "again\n"


def test_deep_sleep_ends_a_terminal_and_says_so(session: Session) -> None:
    with terminal_user(session) as user:
        user.plain()
        started = time.monotonic()
        deep_sleep(session)
        assert time.monotonic() - started < PATIENCE
        assert user.end() == ({"type": "exit", "exitCode": None, "reason": "deep_sleep"}, 1000)
    assert refused(session, terminalId=user.terminal) == (404, "terminal_not_found")
    with terminal_user(session) as another:
        another.sees(PROMPT)


def test_the_end_of_the_runtime_and_of_the_session_are_told(paid: Client) -> None:
    session = paid.open()
    with terminal_user(session) as user:
        user.plain()
        user.type(assault_on_the_guest(session, "end") + "\n")
        assert user.end() == ({"type": "exit", "exitCode": None, "reason": "runtime_ended"}, 1000)
    session.execute(command="true")  # notices that the guest is gone
    with terminal_user(session) as user:
        user.sees(PROMPT)
        session.delete()
        assert user.end()[0]["error"]["code"] == "session_not_found"


def test_nonsense_ends_its_own_connection_alone(session: Session) -> None:
    with terminal_user(session) as good:
        good.plain()
        for text in ("nonsense", "{}", '{"type":"resize","cols":0,"rows":0}', "[" * 100_000):
            with terminal_user(session) as bad:
                bad.connection.send(text)
                told, code = bad.end()
                assert (told["error"]["code"], code) == ("invalid_request", 1008)
        for garbage in (os.urandom(1 << 20), _frame(9, b"x" * 125) * 50_000, _frame(2, b"") * 300_000):
            with closing(_raw(session)) as raw, suppress(OSError):
                raw.sendall(garbage)
        with closing(_raw(session)) as raw, suppress(OSError):
            raw.sendall(_frame(2, b"x", final=False) + _frame(0, b"", final=False) * 300_000)
        with terminal_user(session) as large, suppress(ConnectionClosed):
            large.type(b"x" * (3 << 20))
            large.end()
        assert good.does("echo fine") == "fine\n"


def test_a_client_that_does_not_read_holds_its_program_up_and_nothing_else(session: Session) -> None:
    with closing(_raw(session)) as raw, terminal_user(session) as good:
        good.plain()
        raw.sendall(_frame(2, b"head -c 200000000 /dev/zero | tr '\\0' x; touch over\n"))
        time.sleep(3)
        assert good.does("ls over 2>/dev/null || echo waits") == "waits\n"
        raw.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + PATIENCE
        while good.does("ls over 2>/dev/null || echo waits") == "waits\n":
            assert time.monotonic() < deadline, "the program still waits, although no client is attached"
            time.sleep(0.2)


def test_as_many_as_the_plan_allows(free: Client) -> None:
    session = Session(free, str(free.create().done()["sessionId"]))
    limit = 8  # of the free plan
    with ExitStack() as stack:
        for _ in range(limit):
            stack.enter_context(open_terminal(session))
        assert refused(session) == (429, "resource_limit_exceeded")
    session.delete()


def _frame(opcode: int, content: bytes, *, final: bool = True) -> bytes:
    """Returns a client's frame, masked with zeros."""
    assert len(content) < 126
    return bytes([final << 7 | opcode, 0x80 | len(content), 0, 0, 0, 0]) + content


def _raw(session: Session) -> socket.socket:
    """Opens a raw WebSocket, on which a client can send anything and reads nothing."""
    raw = socket.create_connection(("127.0.0.1", session.client.port))
    raw.settimeout(20)
    key = b64encode(secrets.token_bytes(16)).decode()
    raw.sendall(
        f"GET /sessions/{session.id}/terminal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: Bearer {session.client.key}\r\n\r\n".encode()
    )
    assert raw.recv(12) == b"HTTP/1.1 101"
    return raw
