"""Terminals, over a socket that does what the test tells it to. A refused opening uses a real one."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from buntime_sdk import (
    AsyncBuntime,
    Buntime,
    BuntimeError,
    ConnectionFailed,
    TerminalEnd,
    TerminalNotFound,
    Unavailable,
)
from buntime_sdk.dialing import AsyncSocket, Socket
from stand_in import KEY, LOST, Answer, Player, refusal

READY = json.dumps({"type": "ready", "terminalId": "term_1", "resumed": False})


class Scripted:
    """Returns the frames in turn, then ends cleanly or breaks."""

    def __init__(self, *frames: str | bytes, breaks: bool = False) -> None:
        self.frames = list(frames)
        self.sent: list[str | bytes] = []
        self.closed = False
        self.breaks = breaks
        self.dialled: list[str] = []

    def dial(self, url: str, headers: Mapping[str, str], timeout: float) -> Socket:
        assert headers["Authorization"] == f"Bearer {KEY}"
        self.dialled.append(url)
        return self

    def receive(self) -> str | bytes | None:
        if self.frames:
            return self.frames.pop(0)
        if self.breaks:
            raise ConnectionFailed("Broken.", begun=True)
        return None

    def send(self, message: str | bytes) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self.closed = True


class AsyncScripted:
    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted

    async def dial(self, url: str, headers: Mapping[str, str], timeout: float) -> AsyncSocket:
        self._scripted.dial(url, headers, timeout)
        return self

    async def receive(self) -> str | bytes | None:
        return self._scripted.receive()

    async def send(self, message: str | bytes) -> None:
        self._scripted.send(message)

    async def close(self) -> None:
        self._scripted.close()


def client_of(scripted: Scripted) -> Buntime:
    return Buntime(KEY, "https://buntime.example.com", dial=scripted.dial)


def test_output_ends_with_the_exit_of_the_shell() -> None:
    scripted = Scripted(READY, b"$ ", b"exit\r\n", json.dumps({"type": "exit", "exitCode": 3, "reason": None}))
    with client_of(scripted) as client, client.sessions.open("ses_1").terminal(cols=100, rows=30) as terminal:
        assert (terminal.id, terminal.resumed) == ("term_1", False)
        assert list(terminal) == [b"$ ", b"exit\r\n"]
        assert terminal.end == TerminalEnd("exit", 3, None)
        assert terminal.read() is None
    assert scripted.dialled == ["https://buntime.example.com/sessions/ses_1/terminal?cols=100&rows=30"]
    assert scripted.closed


async def test_async_output_ends_with_the_detachment() -> None:
    scripted = Scripted(READY, b"$ ", json.dumps({"type": "detached"}))
    dial = AsyncScripted(scripted).dial
    async with (
        AsyncBuntime(KEY, "https://buntime.example.com", dial=dial) as client,
        client.sessions.open("ses_1").terminal(terminal_id="term_1") as terminal,
    ):
        assert [output async for output in terminal] == [b"$ "]
        assert terminal.end == TerminalEnd("detached")
        await terminal.write("ls\n")
        await terminal.resize(80, 24)
    assert scripted.sent == [b"ls\n", '{"type": "resize", "cols": 80, "rows": 24}']
    assert scripted.closed


def test_keys_are_sent_as_bytes_and_sizes_as_json() -> None:
    scripted = Scripted(READY)
    with client_of(scripted) as client, client.sessions.open("ses_1").terminal() as terminal:
        terminal.write("olá\n")
        terminal.write(b"\x03")
        terminal.resize(80, 24)
    assert scripted.sent == ["olá\n".encode(), b"\x03", '{"type": "resize", "cols": 80, "rows": 24}']


@pytest.mark.parametrize(
    ("scripted", "kind"),
    [
        (Scripted(json.dumps({"type": "error", "error": {"code": "terminal_not_found"}})), TerminalNotFound),
        (Scripted(), ConnectionFailed),
    ],
)
def test_a_terminal_that_is_not_ready_raises_an_error_and_is_closed(scripted: Scripted, kind: type[Exception]) -> None:
    with client_of(scripted) as client, pytest.raises(kind):
        client.sessions.open("ses_1").terminal()
    assert scripted.closed


def test_a_broken_connection_is_raised_to_the_reader() -> None:
    with client_of(Scripted(READY, b"$ ", breaks=True)) as client:
        terminal = client.sessions.open("ses_1").terminal()
        assert terminal.read() == b"$ "
        with pytest.raises(ConnectionFailed):
            terminal.read()


def opened(client: Any) -> Any:
    return client.sessions.open("ses_1").terminal()


def taken_up(client: Any) -> Any:
    return client.sessions.open("ses_1").terminal(terminal_id="term_1")


def test_a_refusal_raises_the_servers_error(player: Player) -> None:
    with pytest.raises(TerminalNotFound) as caught:
        player.once([refusal("terminal_not_found", 404)], taken_up)
    assert caught.value.status == 404


def test_reconnecting_to_a_terminal_is_retried_and_opening_one_is_not(player: Player) -> None:
    with pytest.raises(Unavailable):
        player.once([refusal("unavailable", 503, after=3)], opened)
    assert player.paused == []
    with pytest.raises(Unavailable):
        player.once([refusal("unavailable", 503, after=3)], taken_up)
    assert player.paused == [3.0, 3.0]


def test_a_terminal_on_a_refused_connection_fails(player: Player) -> None:
    with pytest.raises(ConnectionFailed):
        player.play("http://127.0.0.1:9", opened, max_retries=0)


@pytest.mark.parametrize("answer", [LOST, Answer(200, "<html>")])
def test_a_response_that_is_not_a_web_socket_raises_a_buntime_error(player: Player, answer: Answer) -> None:
    with pytest.raises(BuntimeError):
        player.once([answer], opened, max_retries=0)
