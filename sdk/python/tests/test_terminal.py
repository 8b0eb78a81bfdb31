"""Terminals, over a socket that does what the test tells it to. A refused opening uses a real one."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from buntime_sdk import (
    AsyncBuntime,
    AsyncTerminal,
    Buntime,
    BuntimeError,
    ConnectionFailed,
    InvalidRequest,
    InvalidState,
    RequestTimeout,
    Terminal,
    TerminalEnd,
    TerminalNotFound,
    Unavailable,
)
from buntime_sdk.dialing import AsyncSocket, Socket
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime
from stand_in import KEY, LOST, PATIENCE, Answer, Player, refusal
from websockets.asyncio.server import ServerConnection, serve

READY = json.dumps({"type": "ready", "terminalId": "term_1", "resumed": False})


class Scripted:
    """Returns the frames in turn, then ends cleanly or breaks."""

    def __init__(self, *frames: str | bytes, breaks: bool = False, ended: bool = False) -> None:
        self.frames = list(frames)
        self.sent: list[str | bytes] = []
        self.closed = False
        self.breaks = breaks
        self.ended = ended
        self.dialled: list[str] = []

    def dial(self, url: str, headers: Mapping[str, str], timeout: float) -> Socket:
        assert headers["Authorization"] == f"Bearer {KEY}"
        self.dialled.append(url)
        return self

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        if self.frames:
            return self.frames.pop(0)
        if timeout is not None and not self.ended:
            raise TimeoutError
        if self.breaks:
            raise ConnectionFailed("Broken.", begun=True)
        return None

    def send(self, message: str | bytes) -> None:
        if self.ended:
            raise ConnectionFailed("received 1000 (OK)", begun=True)
        self.sent.append(message)

    def close(self) -> None:
        self.closed = True


class AsyncScripted:
    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted

    async def dial(self, url: str, headers: Mapping[str, str], timeout: float) -> AsyncSocket:
        self._scripted.dial(url, headers, timeout)
        return self

    async def receive(self, timeout: float | None = None) -> str | bytes | None:
        return self._scripted.receive(timeout)

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
        await terminal.write("ls\n")
        await terminal.resize(80, 24)
        assert [output async for output in terminal] == [b"$ "]
        assert terminal.end == TerminalEnd("detached")
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
        (Scripted(json.dumps({"type": "error"})), BuntimeError),
        (Scripted("no JSON"), BuntimeError),
        (Scripted("[1]"), BuntimeError),
        (Scripted(b"$ "), BuntimeError),
        (Scripted(ended=True), ConnectionFailed),
        (Scripted(ended=True, breaks=True), ConnectionFailed),
        (Scripted(), RequestTimeout),
    ],
)
def test_a_terminal_that_is_not_ready_raises_an_error_and_is_closed(scripted: Scripted, kind: type[Exception]) -> None:
    with client_of(scripted) as client, pytest.raises(kind):
        client.sessions.open("ses_1").terminal()
    assert scripted.closed


async def test_a_real_socket_that_stays_silent_is_left_after_the_timeout_or_when_cancelled() -> None:
    closed = asyncio.Semaphore(0)

    async def say_nothing(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.release()

    async with asyncio.timeout(PATIENCE), serve(say_nothing, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncBuntime(KEY, url, timeout=0.5) as hasty, AsyncBuntime(KEY, url) as client:
            with pytest.raises(RequestTimeout, match=r"not ready within 0\.5 seconds"):
                await hasty.sessions.open("ses_1").terminal()
            await closed.acquire()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.sessions.open("ses_1").terminal(), 0.5)
            await closed.acquire()
        with Buntime(KEY, url, timeout=0.5) as plain, pytest.raises(RequestTimeout):
            await asyncio.to_thread(plain.sessions.open("ses_1").terminal)
        await closed.acquire()


def test_reconnecting_to_a_terminal_that_stays_silent_is_retried() -> None:
    silent = Scripted()
    with Buntime(KEY, "https://buntime.example.com", dial=silent.dial, retry_delay=0.001) as client:
        with pytest.raises(RequestTimeout):
            client.sessions.open("ses_1").terminal()
        assert len(silent.dialled) == 1
        with pytest.raises(RequestTimeout):
            client.sessions.open("ses_1").terminal(terminal_id="term_1")
        assert len(silent.dialled) == 4


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


ENDS = [
    ({"type": "exit", "exitCode": 3, "reason": None}, "its shell exited with code 3"),
    ({"type": "exit", "exitCode": None, "reason": "deep_sleep"}, r"its shell was ended \(deep_sleep\)"),
    ({"type": "detached"}, "another client took it over"),
]


@pytest.mark.parametrize(("frame", "how"), ENDS)
def test_typing_after_the_end_says_how_the_terminal_ended(frame: object, how: str) -> None:
    scripted = Scripted(READY, b"bye", json.dumps(frame))
    with client_of(scripted) as client:
        terminal = client.sessions.open("ses_1").terminal()
        scripted.ended = True
        calls: list[Callable[[], object]] = [lambda: terminal.write("ls\n"), lambda: terminal.resize(80, 24)]
        for call in calls:
            with pytest.raises(InvalidState, match=f"^The terminal has ended: {how}.$") as caught:
                call()
        assert caught.value.details["terminalId"] == "term_1"
        assert list(terminal) == [b"bye"]  # nothing of it was lost
        with pytest.raises(InvalidState, match=how):
            terminal.write("ls\n")


async def test_async_typing_after_the_end_says_how_the_terminal_ended() -> None:
    scripted = Scripted(READY, b"bye", json.dumps(ENDS[0][0]))
    async with AsyncBuntime(KEY, "https://buntime.example.com", dial=AsyncScripted(scripted).dial) as client:
        terminal = await client.sessions.open("ses_1").terminal()
        scripted.ended = True
        with pytest.raises(InvalidState, match=ENDS[0][1]):
            await terminal.write("ls\n")
        assert [output async for output in terminal] == [b"bye"]


def test_typing_on_a_connection_that_broke_or_was_closed_raises_connection_failed() -> None:
    scripted = Scripted(READY)
    with client_of(scripted) as client:
        terminal = client.sessions.open("ses_1").terminal()
        scripted.ended = scripted.breaks = True
        with pytest.raises(ConnectionFailed):
            terminal.write("ls\n")
        terminal.close()
        with pytest.raises(ConnectionFailed, match="closed here"):
            terminal.write("ls\n")


def test_reading_ends_at_its_timeout_and_the_terminal_goes_on() -> None:
    scripted = Scripted(READY, b"$ ")
    with client_of(scripted) as client:
        terminal = client.sessions.open("ses_1").terminal()
        assert terminal.read(timeout=0) == b"$ "
        with pytest.raises(TimeoutError, match=r"No output of terminal term_1 within 0\.1 seconds"):
            terminal.read(timeout=0.1)
        scripted.frames.append(b"later")
        assert terminal.read(timeout=5) == b"later"
        with pytest.raises(InvalidRequest, match="timeout must be"):
            terminal.read(timeout=-1)


def test_a_fake_terminals_read_ends_at_its_timeout() -> None:
    with FakeBuntime().sessions.create().terminal() as terminal:
        assert terminal.read(timeout=0) == b"$ "
        with pytest.raises(TimeoutError):
            terminal.read(timeout=0.02)
        terminal.write("exit 3\n")
        with pytest.raises(InvalidState, match="code 3"):
            terminal.write("ls\n")
        assert b"".join(terminal).endswith(b"exit 3\r\n")


async def test_an_async_fake_terminals_read_ends_at_its_timeout() -> None:
    async with (await AsyncFakeBuntime().sessions.create()).terminal() as terminal:
        assert await terminal.read(timeout=0) == b"$ "
        with pytest.raises(TimeoutError):
            await terminal.read(timeout=0.02)


async def _idle(connection: ServerConnection) -> None:
    await connection.send(READY)
    async for typed in connection:
        await connection.send(typed)
        if typed == b"exit\n":
            await connection.send(json.dumps(ENDS[0][0]))
            return


async def test_a_real_socket_keeps_its_output_past_a_timeout_and_tells_its_end() -> None:
    async with serve(_idle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncBuntime(KEY, f"http://127.0.0.1:{port}") as client:
            await _talk_async(await client.sessions.open("ses_1").terminal())
        await asyncio.to_thread(_talk, port)


async def _talk_async(terminal: AsyncTerminal) -> None:
    with pytest.raises(TimeoutError):
        await terminal.read(timeout=0.05)
    await terminal.write("one")
    assert await terminal.read(timeout=PATIENCE) == b"one"
    await terminal.write("exit\n")
    with pytest.raises(InvalidState, match="code 3"):
        await _typed_until_refused(terminal)
    assert b"".join([output async for output in terminal]).startswith(b"exit\n")


async def _typed_until_refused(terminal: AsyncTerminal) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            await terminal.write("x")
            await asyncio.sleep(0.01)


def _talk(port: int) -> None:
    with Buntime(KEY, f"http://127.0.0.1:{port}").sessions.open("ses_1").terminal() as terminal:
        with pytest.raises(TimeoutError):
            terminal.read(timeout=0.05)
        terminal.write("one")
        assert terminal.read(timeout=PATIENCE) == b"one"
        terminal.write("exit\n")
        with pytest.raises(InvalidState, match="code 3"):
            _type_until_refused(terminal)
        assert b"".join(terminal).startswith(b"exit\n")


def _type_until_refused(terminal: Terminal) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        terminal.write("x")
        time.sleep(0.01)
