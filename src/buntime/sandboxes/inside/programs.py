"""Programs of the session that buntime uses: how to call them, and what their failures mean.

Their output is not trusted: the session may have replaced any program.
"""

from collections.abc import Sequence
from typing import Protocol

from buntime.errors import BuntimeError, DiskFull, InvalidState, MemoryLimitExceeded
from buntime.inside import FileStatus, Sink
from buntime.paths import in_bytes
from buntime.ports import Run, RunResult

STDERR_KEPT = 4096  # bytes
STDERR_SHOWN = 300  # characters
PLAIN = frozenset(b"/._-+,:@%=" + bytes([*range(48, 58), *range(65, 91), *range(97, 123)]))
NOT_RUN = (126, 127)  # exit codes of a shell that could not run the program


class Runner(Protocol):
    async def run(self, run: Run, sink: Sink | None = None) -> RunResult: ...


class FileAccess(Protocol):
    """The file operations that are needed around a program."""

    async def status(self, path: str) -> FileStatus: ...

    async def make_directory(self, path: str) -> bool: ...


def quoted(word: str) -> str:
    """The word for a shell. If it has surrogates, they become the bytes they stand for, which needs bash."""
    if word.isascii():
        return "'" + word.replace("'", "'\\''") + "'"
    return "$'" + "".join(chr(byte) if byte in PLAIN else f"\\x{byte:02x}" for byte in in_bytes(word)) + "'"


def line(words: Sequence[str]) -> str:
    return " ".join(quoted(word) for word in words)


class Complaints:
    """The beginning of a program's standard error."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, content: bytes) -> None:
        self._kept += content[: STDERR_KEPT - len(self._kept)]

    @property
    def first(self) -> str:
        """The first line, safe to show to a client."""
        text = self._kept.decode(errors="replace").strip().partition("\n")[0]
        return "".join(character if character.isprintable() else "�" for character in text)[:STDERR_SHOWN]


def limit_met(result: RunResult, program: str) -> BuntimeError | None:
    """Why the program failed, if its input is not the reason."""
    if result.out_of_memory:
        return MemoryLimitExceeded(f"{program} needed more memory than the session has.")
    if result.disk_full:
        return DiskFull("The session's disk limit is reached.")
    if result.exit_code in NOT_RUN:
        return InvalidState(
            f"This needs {program} in the session. Its image lacks it, or it was removed or cannot be run."
        )
    return None
