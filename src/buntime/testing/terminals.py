"""A fake of `inside.Terminals`. Its shell echoes what is typed, and knows `size`, `echo …` and `exit N`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from buntime.errors import TerminalNotFound
from buntime.inside import Exit, NewTerminal, Reason
from buntime.ports import SandboxGone

PROMPT = b"$ "


class FakeTerminals:
    def __init__(self) -> None:
        self.all: dict[str, FakeTerminal] = {}

    @property
    def live(self) -> int:
        return len(self.all)

    async def create(self, new: NewTerminal) -> None:
        self.all[new.id] = FakeTerminal(new)

    async def end(self, terminal_id: str) -> None:
        if terminal_id in self.all:
            self.ends(terminal_id, Exit(137))

    @asynccontextmanager
    async def attach(self, terminal_id: str) -> AsyncIterator["FakeAttachment"]:
        terminal = self.all.get(terminal_id)
        if terminal is None:
            raise TerminalNotFound(terminal_id)
        terminal.detach()
        attachment = terminal.attached = FakeAttachment(self, terminal)
        attachment.say(bytes(terminal.printed))
        try:
            yield attachment
        finally:
            if terminal.attached is attachment:
                terminal.attached = None

    async def ending(self, reason: Reason) -> None:
        for terminal_id in list(self.all):
            self.ends(terminal_id, Exit(None, reason))

    def ends(self, terminal_id: str, how: Exit | SandboxGone) -> None:
        """Ends the shell."""
        terminal = self.all.pop(terminal_id)
        if terminal.attached is not None:
            terminal.attached.say(how)

    def cut(self) -> None:
        """Ends all terminals: the sandbox was killed."""
        for terminal_id in list(self.all):
            self.ends(terminal_id, SandboxGone("it does not run"))


class FakeTerminal:
    def __init__(self, new: NewTerminal) -> None:
        self.new = new
        self.size = (new.rows, new.cols)
        self.printed = bytearray(PROMPT)
        self.line = bytearray()
        self.attached: FakeAttachment | None = None

    def prints(self, content: bytes) -> None:
        self.printed += content
        if self.attached is not None:
            self.attached.say(content)

    def detach(self) -> None:
        if self.attached is not None:
            self.attached.say(None)
        self.attached = None


class FakeAttachment:
    """`unread`: output that nobody has taken. None in it: another client has attached."""

    def __init__(self, terminals: FakeTerminals, terminal: FakeTerminal) -> None:
        self._terminals = terminals
        self._terminal = terminal
        self.unread: asyncio.Queue[bytes | Exit | SandboxGone | None] = asyncio.Queue()

    def say(self, what: bytes | Exit | SandboxGone | None) -> None:
        self.unread.put_nowait(what)

    async def output(self) -> AsyncIterator[bytes | Exit]:
        while (part := await self.unread.get()) is not None:
            if isinstance(part, SandboxGone):
                raise part
            yield part
            if isinstance(part, Exit):
                return

    async def write(self, content: bytes) -> None:
        terminal = self._terminal
        if terminal.attached is not self:
            return
        terminal.prints(content.replace(b"\n", b"\r\n"))
        *lines, rest = (bytes(terminal.line) + content).split(b"\n")
        terminal.line = bytearray(rest)
        for line in lines:
            self._do(line.decode(errors="replace"))

    async def resize(self, cols: int, rows: int) -> None:
        if self._terminal.attached is self:
            self._terminal.size = (rows, cols)

    def _do(self, line: str) -> None:
        terminal = self._terminal
        name, _, argument = line.partition(" ")
        if name == "exit":
            self._terminals.ends(terminal.new.id, Exit(int(argument or 0)))
            return
        answers = {"size": "{} {}\r\n".format(*terminal.size), "echo": argument + "\r\n"}
        terminal.prints(answers.get(name, "").encode() + PROMPT)
