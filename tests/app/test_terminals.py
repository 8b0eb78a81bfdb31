"""Terminals over their WebSocket, on top of the fakes."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from buntime.inside import Exit
from buntime.session import State
from buntime.testing.terminals import FakeAttachment, FakeTerminals
from buntime.web.api import terminal
from buntime.web.websocket import MOST_FRAGMENTS, Connection
from buntime.web.wire.terminal import Resize
from tests.app.serving import Api
from tests.waiting import eventually

PATIENCE = 20.0  # seconds


class TerminalUser:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen = b""
        self.messages: list[dict[str, Any]] = []

    async def type(self, text: str) -> None:
        await self.connection.send(text.encode())

    async def tell(self, frame: object) -> None:
        await self.connection.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def sees(self, text: bytes) -> None:
        while text not in self.seen:
            await self.receive()

    async def receive(self) -> None:
        message = await asyncio.wait_for(self.connection.recv(), PATIENCE)
        if isinstance(message, bytes):
            self.seen += message
        else:
            self.messages.append(json.loads(message))

    async def end(self) -> tuple[dict[str, Any], int]:
        """Waits until the connection closes. Returns the last message and the close code."""
        with suppress(ConnectionClosed):
            while True:
                await self.receive()
        assert self.connection.close_code is not None
        return self.messages[-1], self.connection.close_code


async def open_terminal(api: Api, session: str, key: str | None = None, **query: object) -> TerminalUser:
    """Opens a terminal and waits for `ready`."""
    url = f"{api.url.replace('http', 'ws')}/sessions/{session}/terminal?{urlencode(query)}"
    headers: Mapping[str, str] = {} if key == "" else {"Authorization": f"Bearer {key or api.key}"}
    user = TerminalUser(await connect(url, additional_headers=headers, compression=None))
    await user.receive()
    return user


async def refused(api: Api, session: str, key: str | None = None, **query: object) -> tuple[int, Any]:
    with pytest.raises(InvalidStatus) as refusal:
        await open_terminal(api, session, key, **query)
    response = refusal.value.response
    assert response.headers["X-Request-Id"]
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, json.loads(response.body or b"")["error"]


def terminals_of(api: Api, session: str) -> FakeTerminals:
    return api.sandboxes.running[api.store.sessions[session].sandbox].terminals


async def test_a_new_terminal_says_what_it_is_and_ends_with_its_exit_code(api: Api) -> None:
    session = await api.session(env={"MINE": "yes"})
    user = await open_terminal(api, session, cols=100, rows=30, workingDir="src")
    ready = user.messages[0]
    assert ready == {
        "type": "ready",
        "terminalId": ready["terminalId"],
        "cols": 100,
        "rows": 30,
        "resumed": False,
    }
    new = terminals_of(api, session).all[ready["terminalId"]].new
    assert (new.env, new.working_dir, new.cols, new.rows) == ({"MINE": "yes"}, "/workspace/src", 100, 30)
    assert user.connection.response is not None
    assert user.connection.response.headers["X-Request-Id"]
    assert user.connection.response.headers["X-RateLimit-Limit"]
    await user.type("echo hello\n")
    await user.sees(b"hello\r\n$ ")
    await user.tell({"type": "resize", "cols": 90, "rows": 20})
    await user.type("size\n")
    await user.sees(b"20 90\r\n")
    await user.type("exit 3\n")
    assert await user.end() == ({"type": "exit", "exitCode": 3, "reason": None}, 1000)


async def test_a_terminal_can_be_reopened_and_taken_over(api: Api) -> None:
    session = await api.session()
    first = await open_terminal(api, session)
    await first.type("echo one\n")
    await first.sees(b"one\r\n")
    await first.connection.close()
    terminal_id = first.messages[0]["terminalId"]
    second = await open_terminal(api, session, terminalId=terminal_id)
    assert second.messages[0] == {
        "type": "ready",
        "terminalId": terminal_id,
        "cols": None,
        "rows": None,
        "resumed": True,
    }
    await second.sees(b"one\r\n")
    third = await open_terminal(api, session, terminalId=terminal_id, cols=70, rows=10)
    assert await second.end() == ({"type": "detached"}, 1000)
    await third.type("size\n")
    await third.sees(b"10 70\r\n")


async def test_a_refused_terminal_is_an_ordinary_answer_before_the_upgrade(api: Api) -> None:
    session = await api.session()
    unknown = "term_" + "a" * 18
    expected: list[tuple[Any, int, str]] = [
        ({"cols": 1, "rows": 24}, 400, "invalid_request"),
        ({"cols": 80, "rows": 501}, 400, "invalid_request"),
        ({"cols": 80}, 400, "invalid_request"),
        ({"rows": "x", "cols": 80}, 400, "invalid_request"),
        ({"other": 1}, 400, "invalid_request"),
        ({"workingDir": "a\0b"}, 400, "invalid_request"),
        ({"terminalId": unknown}, 404, "terminal_not_found"),
        ({"terminalId": "nonsense"}, 404, "terminal_not_found"),
        ({"terminalId": ""}, 404, "terminal_not_found"),
    ]
    for query, status, code in expected:
        found, error = await refused(api, session, **query)
        assert (found, error["code"]) == (status, code), query
    assert (await refused(api, "ses_" + "z" * 18))[1]["code"] == "session_not_found"
    assert (await refused(api, "nonsense"))[1]["code"] == "session_not_found"
    assert (await refused(api, session, key=""))[0] == 401
    stranger = await api.account(name="two")
    assert (await refused(api, session, key=stranger))[1]["code"] == "session_not_found"


async def test_other_paths_take_no_websockets_and_this_one_takes_nothing_else(api: Api) -> None:
    session = await api.session()
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"{api.url.replace('http', 'ws')}/nowhere", additional_headers={"Authorization": api.key})
    assert refusal.value.response.status_code == 401
    key = {"Authorization": f"Bearer {api.key}"}
    for path in ("/nowhere", f"/sessions/{session}", "/healthz"):
        with pytest.raises(InvalidStatus) as refusal:
            await connect(api.url.replace("http", "ws") + path, additional_headers=key)
        assert refusal.value.response.status_code == 404, path
    assert (await api.call("GET", f"/sessions/{session}/terminal")).refusal == (400, "invalid_request")
    assert (await api.call("POST", f"/sessions/{session}/terminal", {})).refusal == (405, "method_not_allowed")


NONSENSE = [
    "nonsense",
    "{}",
    "[]",
    '{"type":"resize"}',
    '{"type":"resize","cols":1,"rows":1}',
    '{"type":"resize","cols":80,"rows":24,"x":1}',
    '{"type":"resize","cols":"80","rows":24}',
    '{"type":"exit","exitCode":0}',
]


@pytest.mark.parametrize("text", NONSENSE)
async def test_a_meaningless_text_frame_ends_only_the_connection(api: Api, text: str) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    await user.tell(text)
    told, code = await user.end()
    assert (told["type"], told["error"]["code"], code) == ("error", "invalid_request", 1008)
    again = await open_terminal(api, session, terminalId=user.messages[0]["terminalId"])
    await again.type("echo on\n")
    await again.sees(b"on\r\n")


async def test_terminals_and_attached_clients_are_bounded(api: Api) -> None:
    key = await api.account("paid", "few", terminals_per_session=2, streams_per_session=2)
    made = await api.call("POST", "/sessions/create", {}, key=key)
    session = made.json["sessionId"]
    users = [await open_terminal(api, session, key) for _ in range(2)]
    status, error = await refused(api, session, key)
    assert (status, error["code"], error["details"]["resource"]) == (429, "resource_limit_exceeded", "open streams")
    await users[0].connection.close()
    status, error = await _refused_soon(api, session, key)
    assert (status, error["details"]["resource"], error["details"]["scope"]) == (429, "terminals", "session")
    await users[1].type("exit 0\n")
    await users[1].end()
    await open_terminal(api, session, key)


async def _refused_soon(api: Api, session: str, key: str) -> tuple[int, Any]:
    """Waits until the server refuses because it has noticed that a client left."""
    while True:
        status, error = await refused(api, session, key)
        if error["details"]["resource"] != "open streams":
            return status, error
        await asyncio.sleep(0.01)


async def test_typing_is_activity_and_an_open_terminal_is_not(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    await user.sees(b"$ ")
    keeper = api.keeper(idle_after=60.0, deep_sleep_after=600.0)
    api.clock.now += 61
    await api.keep(keeper)
    assert api.store.sessions[session].state is State.IDLE
    await user.type("echo awake\n")
    await user.sees(b"awake\r\n")
    async with asyncio.timeout(PATIENCE):
        await eventually(lambda: api.store.sessions[session].state is State.ACTIVE)
    assert api.store.sessions[session].last_active >= int(api.clock.now)


async def test_the_end_of_the_session_has_a_reason(api: Api) -> None:
    session = await api.session()
    user, other = await open_terminal(api, session), await open_terminal(api, session)
    terminals_of(api, session).ends(other.messages[0]["terminalId"], Exit(None, "deep_sleep"))
    assert await other.end() == ({"type": "exit", "exitCode": None, "reason": "deep_sleep"}, 1000)
    await api.call("DELETE", f"/sessions/{session}")
    told, code = await user.end()
    assert (told["type"], told["error"]["code"], code) == ("error", "session_not_found", 1011)


async def test_a_runtime_that_ends_says_so(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    await api.sandboxes.kill(api.store.sessions[session].sandbox)
    assert await user.end() == ({"type": "exit", "exitCode": None, "reason": "runtime_ended"}, 1000)


async def test_large_frames_and_many_frames_arrive_complete(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    for at in range(2000):
        await user.type(f"{at},")
    await user.type("x" * 900_000 + "end")
    await user.sees(b"xend")
    assert b"".join(b"%d," % at for at in range(2000)) in user.seen


async def test_input_that_a_client_sent_before_it_left_arrives(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    write, session = FakeAttachment.write, await api.session()

    async def slowly(self: FakeAttachment, content: bytes) -> None:
        await asyncio.sleep(0.05)
        await write(self, content)

    monkeypatch.setattr(FakeAttachment, "write", slowly)
    user = await open_terminal(api, session)
    shell = terminals_of(api, session).all[user.messages[0]["terminalId"]]
    for part in ("echo ", "one\n", "echo ", "two\n"):
        await user.type(part)
        await asyncio.sleep(0.01)
    leaving = asyncio.create_task(user.connection.close())
    while not leaving.done() or shell.attached is not None:
        shell.prints(b"noise\r\n")  # makes the server notice that the client left
        await asyncio.sleep(0.005)
    assert b"echo two\r\n" in shell.printed.replace(b"noise\r\n", b"")


async def _never(_: FakeAttachment, content: bytes) -> None:
    """Plays a program that never reads."""
    await asyncio.Event().wait()


async def _is_let_go(api: Api, session: str, terminal_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while terminals_of(api, session).all[terminal_id].attached is not None:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        while api.operations.entrance._streams:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_client_can_leave_a_program_that_does_not_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeAttachment, "write", _never)
    session = await api.session()
    user = await open_terminal(api, session)
    for text in ("x" * 100_000, "y" * 100_000):
        await user.type(text)
        await asyncio.sleep(0.05)
    user.connection.transport.abort()
    await _is_let_go(api, session, user.messages[0]["terminalId"])


async def test_the_server_reads_one_message_ahead_of_a_program_that_does_not_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    says, taken = terminal.Client.says, 0

    async def counted(self: terminal.Client) -> bytes | Resize:
        nonlocal taken
        said = await says(self)
        taken += 1
        return said

    def quickly(self: Connection, transport: asyncio.BaseTransport) -> None:
        # only a ping notices that a client left while nothing is read
        self.ping_interval, self.ping_timeout = 0.1, None
        made(self, transport)

    made = Connection.connection_made
    monkeypatch.setattr(Connection, "connection_made", quickly)
    monkeypatch.setattr(terminal.Client, "says", counted)
    monkeypatch.setattr(FakeAttachment, "write", _never)
    session = await api.session()
    user = await open_terminal(api, session)
    for _ in range(5):
        await user.type("x" * 100_000)
        await user.tell({"type": "resize", "cols": 90, "rows": 20})
    await asyncio.sleep(0.3)
    assert taken == 2
    user.connection.transport.abort()
    await _is_let_go(api, session, user.messages[0]["terminalId"])


async def test_a_client_that_reads_nothing_for_long_is_disconnected(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "STALL_SECONDS", 0.2)
    session = await api.session()
    user = await open_terminal(api, session)
    at = terminals_of(api, session).all[user.messages[0]["terminalId"]]
    at.prints(b"x" * (64 << 20))
    async with asyncio.timeout(PATIENCE):
        while at.attached is not None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
    user.connection.transport.abort()
    at.printed.clear()
    again = await open_terminal(api, session, terminalId=user.messages[0]["terminalId"])
    await again.type("echo on\n")
    await again.sees(b"on\r\n")


async def test_a_flood_of_tiny_frames_arrives_in_order_and_joined(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    text = "".join(chr(97 + at % 26) for at in range(30_000))
    frames = b"".join(bytes([0x82, 0x81, 0, 0, 0, 0, ord(letter)]) for letter in text)
    user.connection.transport.write(frames)
    await user.type("END")
    await user.sees(b"END")
    assert text.encode() in user.seen


async def test_invalid_utf8_closes_the_connection(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    user.connection.transport.write(bytes([0x81, 0x82, 0, 0, 0, 0, 0xFF, 0xFE]))
    assert (await user.end())[1] == 1007


async def test_a_message_in_too_many_fragments_closes_the_connection_with_a_code(api: Api) -> None:
    session = await api.session()
    user = await open_terminal(api, session)
    pieces = [bytes([0x02 if not at else 0x00, 0x81, 0, 0, 0, 0, 0x61]) for at in range(MOST_FRAGMENTS + 100)]
    user.connection.transport.write(b"".join(pieces))
    assert (await user.end())[1] == 1009
