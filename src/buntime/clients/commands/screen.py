"""The terminal that a person sits at: raw while a session has it, and as it was before afterwards."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

LEAVE = b"~."  # at the beginning of a line, as ssh has it
CHUNK = 65536
# What a program that was cut off may have left on: the other screen, pasting and mouse modes, a hidden cursor.
AS_NORMAL = b"\x1b[?1049l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[0m\r\n"


class Screen:
    """Keys come from stdin, bytes go to stdout. `woken` and a change of the window's size end a wait for keys."""

    def __init__(self) -> None:
        self._keys, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self.resized = False
        self.leaving = Leaving()

    @staticmethod
    def is_there() -> bool:
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, in the bounds that the server takes."""
        found = os.get_terminal_size(self._out)
        return min(max(found.columns, 2), 500), min(max(found.lines, 2), 500)

    @contextmanager
    def raw(self) -> Iterator[None]:
        before = termios.tcgetattr(self._keys)
        handler = signal.signal(signal.SIGWINCH, self._resize)
        tty.setraw(self._keys, termios.TCSADRAIN)  # what is typed already is kept
        try:
            yield
        finally:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, handler)

    def wake(self) -> None:
        """From any thread. A pipe that is full will wake it too."""
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def keys(self, seconds: float | None = None) -> bytes | None:
        """What is typed; b"" when it was woken or the time is over; None when the terminal is gone."""
        ready, _, _ = select.select([self._keys, self._wake_read], [], [], seconds)
        if self._wake_read in ready:
            os.read(self._wake_read, CHUNK)
        if self._keys not in ready:
            return b""
        try:
            return os.read(self._keys, CHUNK) or None
        except OSError:  # EIO: it was closed
            return None

    def show(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._out, content) :]

    def calm(self) -> None:
        """After what was not the shell's own end."""
        self.show(AS_NORMAL)

    def say(self, sentence: str) -> None:
        self.show(f"\r\nbuntime: {sentence}\r\n".encode())

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self.resized = True
        self.wake()


class Leaving:
    """Finds `~.` after Enter in what is typed."""

    def __init__(self) -> None:
        self._held = b"\r"  # as after Enter

    def asked(self, typed: bytes) -> tuple[bytes, bool]:
        """What is to be sent of it, and whether the person wants to leave. A `~` after Enter is held back for a key."""
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
