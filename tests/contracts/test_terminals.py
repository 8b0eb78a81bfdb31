"""The contract of `inside.Terminals`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from buntime.errors import TerminalNotFound
from buntime.inside import Attachment, Exit, NewTerminal
from buntime.ports import Sandbox, SandboxGone
from tests.contracts.test_sandboxes import LIMITS, REAL, FakeHost, Host, LocalHost

ID = "term_abc123def456ghi789"
PATIENCE = 30.0  # seconds


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    host: Host = FakeHost() if request.param == "fake" else LocalHost()
    try:
        await host.reopen({})
        yield host
    finally:
        await host.close()


@pytest.fixture
async def sandbox(host: Host) -> Sandbox:
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    await sandbox.terminals.create(NewTerminal(ID, 80, 24, {"HOME": "/workspace"}))
    return sandbox


class TerminalUser:
    """A user who is attached to a terminal."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self._parts = attachment.output()
        self.seen = b""

    async def type(self, text: str) -> None:
        await self.attachment.write(text.encode())

    async def sees(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.seen:
                part = await anext(self._parts)
                assert isinstance(part, bytes), self.seen
                self.seen += part

    async def end(self) -> Exit | None:
        async with asyncio.timeout(PATIENCE):
            async for part in self._parts:
                if isinstance(part, Exit):
                    return part
                self.seen += part
        return None


async def test_typed_commands_run_and_the_end_is_reported(sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as attachment:
        user = TerminalUser(attachment)
        await user.type("echo hello\n")
        await user.sees(b"hello\r\n")
        assert sandbox.live("terminals") == 1
        await user.type("exit 3\n")
        assert await user.end() == Exit(3)
    with pytest.raises(TerminalNotFound):
        async with sandbox.terminals.attach(ID):
            pass


async def test_a_client_that_returns_sees_the_screen_again(sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as attachment:
        user = TerminalUser(attachment)
        await user.type("echo first\n")
        await user.sees(b"first\r\n")
    async with sandbox.terminals.attach(ID) as attachment:
        await TerminalUser(attachment).sees(b"first\r\n")


async def test_another_client_takes_over(sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as one, sandbox.terminals.attach(ID) as other:
        assert await TerminalUser(one).end() is None
        user = TerminalUser(other)
        await user.type("echo mine\n")
        await user.sees(b"mine\r\n")


async def test_all_terminals_end_for_a_reason(sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as attachment:
        await sandbox.terminals.ending("deep_sleep")
        assert await TerminalUser(attachment).end() == Exit(None, "deep_sleep")
    with pytest.raises(TerminalNotFound):
        async with sandbox.terminals.attach(ID):
            pass


async def test_a_terminal_is_gone_with_its_sandbox(host: Host, sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as attachment:
        user = TerminalUser(attachment)
        await user.type("echo here\n")
        await user.sees(b"here\r\n")
        await host.sandboxes.kill(sandbox.id)
        with pytest.raises(SandboxGone):
            await user.end()


async def test_an_unknown_terminal_is_not_found(sandbox: Sandbox) -> None:
    with pytest.raises(TerminalNotFound):
        async with sandbox.terminals.attach("term_" + "z" * 18):
            pass


async def test_an_ended_terminal_reports_a_kill_and_is_forgotten(sandbox: Sandbox) -> None:
    async with sandbox.terminals.attach(ID) as attachment:
        user = TerminalUser(attachment)
        await user.sees(b" ")
        await sandbox.terminals.end(ID)
        assert await user.end() == Exit(137)
    await sandbox.terminals.end(ID)
    with pytest.raises(TerminalNotFound):
        async with sandbox.terminals.attach(ID):
            pass
    assert sandbox.live("terminals") == 0
