"""The person's terminal: raw while a session uses it, restored afterwards."""

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

LEAVE = b"~."  # at the beginning of a line, as in ssh
CHUNK = 65536
# Resets what an interrupted program may have left: the alternate screen, paste and mouse modes, a hidden cursor.
AS_NORMAL = b"\x1b[?1049l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[0m\r\n"


class Screen:
    """Keys come from stdin, bytes go to stdout. `wake` and a resize of the window end a wait for keys."""

    def __init__(self) -> None:
        self._keys, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._pipe = threading.RLock()  # a signal may come while its own thread has it
        self._is_closed = False
        self.resized = False
        self.leaving = Leaving()

    @staticmethod
    def is_there() -> bool:
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, within the server's limits."""
        found = os.get_terminal_size(self._out)
        return min(max(found.columns, 2), 500), min(max(found.lines, 2), 500)

    @contextmanager
    def raw(self) -> Iterator[None]:
        before = termios.tcgetattr(self._keys)
        handler = signal.signal(signal.SIGWINCH, self._resize)
        tty.setraw(self._keys, termios.TCSADRAIN)  # keeps what was already typed
        try:
            yield
        finally:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, handler)

    def wake(self) -> None:
        """Ends a wait for keys, from any thread, also after `close`. A full pipe already wakes it."""
        with self._pipe, suppress(BlockingIOError):
            if not self._is_closed:
                os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Gives back what it opened. Nobody waits for keys any more."""
        with self._pipe:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._wake_read)
                os.close(self._wake_write)

    def keys(self, seconds: float | None = None) -> bytes | None:
        """The typed keys. b"" if woken or out of time, None if the terminal is gone."""
        ready, _, _ = select.select([self._keys, self._wake_read], [], [], seconds)
        if self._wake_read in ready:
            os.read(self._wake_read, CHUNK)
        if self._keys not in ready:
            return b""
        try:
            return os.read(self._keys, CHUNK) or None
        except OSError:  # EIO: the terminal was closed
            return None

    def show(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._out, content) :]

    def calm(self) -> None:
        """Resets the terminal after anything but the shell's own end."""
        self.show(AS_NORMAL)

    def say(self, sentence: str) -> None:
        self.show(f"\r\nbuntime: {sentence}\r\n".encode())

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self.resized = True
        self.wake()


class Leaving:
    """Finds `~.` after Enter in the typed keys."""

    def __init__(self) -> None:
        self._held = b"\r"  # as after Enter

    def asked(self, typed: bytes) -> tuple[bytes, bool]:
        """The keys to send, and whether the person wants to leave. Holds back a `~` after Enter until the next key."""
        sent = b""
        for byte in (typed[index : index + 1] for index in range(len(typed))):
            if self._held == b"~":
                if byte == b".":
                    return sent, True
                sent += b"~"
            at_start = self._held == b"\r"
            self._held = b"~" if byte == b"~" and at_start else b"\r" if byte in b"\r\n" else b""
            if self._held != b"~":
                sent += byte
        return sent, False
