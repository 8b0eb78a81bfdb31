"""A fake terminal. It echoes what is typed, and a scripted line prints the script's output."""

import codecs
import json
import re
from collections import deque

from buntime_sdk._fake.scripts import FakeResult, FakeRun, Scripts
from buntime_sdk._fake.session import FakeSession
from buntime_sdk.errors import BuntimeError, ConnectionFailed

PROMPT = "$ "
COLS, ROWS = 80, 24
EXIT = re.compile(r"\s*exit(?:\s+(\d+))?\s*")


class FakeTerminal:
    """`frames`: those not received yet."""

    def __init__(self, session: FakeSession, scripts: Scripts, terminal_id: str, *, resumed: bool) -> None:
        self.frames: deque[str | bytes] = deque()
        self._session = session
        self._scripts = scripts
        self._id = terminal_id
        self._line = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        session.terminals.add(terminal_id)
        ready = {"type": "ready", "terminalId": terminal_id, "cols": COLS, "rows": ROWS, "resumed": resumed}
        self.frames.append(json.dumps(ready))
        self._show(PROMPT)

    @property
    def is_over(self) -> bool:
        """Whether it has exited or its session has ended it."""
        return self._id not in self._session.terminals

    def type(self, message: str | bytes) -> None:
        """Raises ConnectionFailed if the terminal has ended."""
        if self.is_over:
            raise ConnectionFailed("The connection broke: the terminal has ended.", begun=True)
        if isinstance(message, str):
            return  # a new size
        for key in self._decode(message):
            if self.is_over:
                return
            if key not in "\r\n":
                self._line += key
                self._show(key)
            else:
                line, self._line = self._line, ""
                self._enter(line)

    def _enter(self, line: str) -> None:
        self._show("\r\n")
        leaves = EXIT.fullmatch(line)
        if leaves is not None:
            self._session.terminals.discard(self._id)
            self.frames.append(json.dumps({"type": "exit", "exitCode": int(leaves[1] or 0), "reason": None}))
            return
        result = self._played(line) if line.strip() else FakeResult()
        self._show((result.stdout + result.stderr).replace("\n", "\r\n") + PROMPT)

    def _played(self, line: str) -> FakeResult:
        run = FakeRun("terminal", self._session.id, command=line, env=self._session.env)
        try:
            result = self._scripts.find(run)
        except BuntimeError as failure:  # a shell shows the failure and goes on
            return FakeResult(stderr=f"{failure.message}\n")
        return result or FakeResult(stderr=f"Nothing is scripted for {line!r}: call on_execute first.\n")

    def _show(self, text: str) -> None:
        self.frames.append(text.encode())
