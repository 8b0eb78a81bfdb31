"""A user at the command line, who runs `buntime` with pipes or on a terminal."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.acceptance.server import BUNTIME

PATIENCE = 60.0  # seconds; a guard against a hang
NO_LOGIN = {"XDG_CONFIG_HOME": "/nonexistent"}  # not what the person who runs the tests is logged in to


@dataclass(frozen=True, slots=True)
class User:
    """Has an API key and the server's URL."""

    url: str
    key: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        # readline sets COLUMNS and LINES to the size of pytest's terminal
        mine = ("BUNTIME_", "COLUMNS", "LINES")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        return {
            **kept,
            "TERM": "xterm-256color",
            "BUNTIME_URL": self.url,
            "BUNTIME_API_KEY": self.key,
            **NO_LOGIN,
            **self.settings,
        }

    def runs(self, *words: str, typed: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Runs a command until it ends. Pipes `typed` to its stdin."""
        with subprocess.Popen(
            [BUNTIME, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(typed, PATIENCE)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def gets(self, *words: str, typed: bytes | None = None) -> str:
        """Runs a command that must succeed. Returns its stdout without the last line break."""
        done = self.runs(*words, typed=typed)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().removesuffix("\n")

    def is_refused(self, *words: str) -> str:
        """Runs a command that must fail. Returns its error, which must be one line."""
        done = self.runs(*words)
        said = done.stderr.decode()
        assert (done.returncode, done.stdout) == (1, b""), said
        assert said.startswith("buntime: ")
        assert said.count("\n") == 1
        return said

    def begins(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts a command with pipes. The caller must end it."""
        return subprocess.Popen(
            [BUNTIME, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # unbuffered, so that `communicate` gets the output after the lines that a test read
        )

    def opens_terminal(self, *words: str, cols: int = 100, rows: int = 30) -> "Terminal":
        return Terminal([str(BUNTIME), *words], self.environment, cols, rows)


class Terminal:
    """A pseudo-terminal that runs a command. Use it in a `with` block."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cols: int, rows: int) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(cols, rows)
        self.before = termios.tcgetattr(self._theirs)
        self.seen = b""
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, cols: int, rows: int) -> None:
        """Resizes the terminal. The kernel sends SIGWINCH to the command."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def types(self, text: str | bytes) -> None:
        os.write(self._ours, text.encode() if isinstance(text, str) else text)

    def sees(self, text: str | bytes) -> bytes:
        """Waits for a text. Removes the output up to it, and returns what came before it."""
        wanted = text.encode() if isinstance(text, str) else text
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen[-3000:]
            self._look(0.1)
        before, _, self.seen = self.seen.partition(wanted)
        return before

    def ends(self) -> int:
        """Waits until the command ends. Returns its exit status; `seen` has the rest of the output."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.seen[-3000:]
            self._look(0.05)
        self._look(0)
        return self._process.returncode

    def hangs_up(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def _look(self, seconds: float) -> None:
        while select.select([self._ours], [], [], seconds)[0]:
            self.seen += os.read(self._ours, 65536)
            seconds = 0
