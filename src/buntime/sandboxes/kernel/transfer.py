"""Volumes as streams: the `btrfs send` and `btrfs receive` processes, fed and read piece by piece. Blocking.

The kernel makes the stream and replays it, hostile trees included. Nothing here walks a tree that a session made.
"""

import fcntl
import os
import re
import resource
import select
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import structlog

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import VolumeUnsendable
from buntime.sandboxes.kernel.commands import has_ended

ENDS_WITH_SERVER = ["setpriv", "--pdeathsig", "KILL"]
GENTLY = ["nice", "-n", "10", "ionice", "-c", "2", "-n", "7"]  # these matter only where something else wants to run
SEND = [*GENTLY, "btrfs", "-q", "send", "--proto", "2", "--compressed-data"]
RECEIVE = ["btrfs", "-q", "receive", "--chroot"]
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

PIECE = 256 << 10
PIPE = 1 << 20  # bytes that wait in a pipe: so the process works on while the server gets or stores a piece
SILENT_SECONDS = 60.0  # without a byte sent or received
PULSE_SECONDS = 0.25
END_SECONDS = 10.0
# CPU time for a stream: a path of 2,000 directories takes the kernel 15 ms, and a volume can have millions.
CPU_SECONDS, SLOWEST = 60, 16 * MB  # and another second for so many bytes
NEARLY = 0.9  # the kernel counts CPU time for the limit in another way than the time that it shows
KEPT_OUTPUT = 500  # characters of a process's messages

# fs/btrfs/send.h
MAGIC = b"btrfs-stream\0"
HEAD = len(MAGIC) + 4
COMMAND = struct.Struct("<IH4x")  # length of what follows, kind, checksum
SYMLINK, SET_XATTR, WRITE, ENCODED_WRITE = 8, 13, 15, 25
MAKING = range(3, SYMLINK + 1)  # commands that make a file of any kind
CHMOD, CHOWN = 18, 19
# The kernel sends paths of up to 4,095 bytes from the volume's root. They are received below the volume's name, which
# makes them too long for any system call. So a command may hold one path of 4,000 bytes, or two shorter ones.
LONGEST_WITH_PATHS = 4070
FAILED = 1  # the exit status of `btrfs` itself
BLOCK = 4096  # of a file system
FAILURES_OF_THE_HOST = re.compile("No space left|Input/output error|Cannot allocate memory|Read-only file system")
NO_STREAM = re.compile(
    "empty stream|short read from stream|unexpected (header|EOF)|crc32 mismatch|is truncated|invalid tlv|not present"
)

log = structlog.get_logger()


@dataclass(slots=True)
class Commands:
    """Follows a stream from command to command. It steps over short commands, which come in millions."""

    is_increment: bool = False
    data: int = 0  # bytes of files, compressed where they are compressed on the volume
    _made: int = 0  # the command that made the file whose owner comes next
    _last: int = 0  # the last command
    _missing: int = HEAD  # bytes before the next command's head
    _head: bytes = b""  # as much of it as came with the last piece

    def follow(self, piece: bytes) -> None:
        """Raises VolumeUnsendable for paths that `received` could not create, and for what an increment cannot say."""
        given = self._head + piece if self._head else piece
        at, end = self._missing, len(given) - COMMAND.size
        while at <= end:
            size, kind = COMMAND.unpack_from(given, at)
            if self.is_increment:
                self._see_owner(kind)
            if size > LONGEST_WITH_PATHS:
                self._see_long(kind, size)
            at += COMMAND.size + size
        self._missing = max(0, at - len(given))
        self._head = given[at:]

    def _see_owner(self, kind: int) -> None:
        """A new owner takes the bits away that let a program run as its owner or group. A full stream sets them after
        that. An increment does not, if the mode is what it was before. Only symbolic links have no mode to set."""
        if self._last == CHOWN:
            if kind != CHMOD and self._made != SYMLINK:
                raise VolumeUnsendable("a file has another owner and the same mode as before")
            self._made = 0
        if kind in MAKING:
            self._made = kind
        self._last = kind

    def _see_long(self, kind: int, size: int) -> None:
        if kind in (WRITE, ENCODED_WRITE):
            self.data += size // BLOCK * BLOCK  # the rest of a command is shorter than a block
        elif kind not in (SYMLINK, SET_XATTR):
            raise VolumeUnsendable("it has paths of more than 4,000 bytes")


def sent(volume: Path, largest: int, most_data: int, parent: Path | None = None) -> Iterator[bytes]:
    """The read-only subvolume as a stream. Pieces are empty while the kernel takes its time, so that the caller can
    close the iterator soon. Closing kills the process and waits for its end.

    `parent`: an older state of it, also read-only. Then the stream has only what changed since.

    Raises Unavailable and VolumeUnsendable. A stream of more than `largest` bytes is unsendable, and so is one with
    more than `most_data` bytes of files, or a tree that takes the kernel too long.
    """
    seconds = CPU_SECONDS + largest // SLOWEST
    since = [] if parent is None else ["-p", str(parent)]
    with _running([*SEND, *since, str(volume)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        running.bound(seconds)
        commands = Commands(is_increment=parent is not None)
        yield from _bounded(_pieces(_handle(running.process.stdout)), commands, largest, most_data)
        failed = running.failure()
    if failed is not None:
        raise _not_sent(volume, running, failed, seconds)


def _pieces(stream: int) -> Iterator[bytes]:
    """What the process writes, to its end. Raises Unavailable when it is silent for too long."""
    heard = time.monotonic()
    while True:
        if not _ready(stream, select.POLLIN, PULSE_SECONDS):
            if time.monotonic() - heard > SILENT_SECONDS:
                raise Unavailable("A volume could not be read: nothing came of it for a minute.")
            yield b""
            continue
        piece = os.read(stream, PIECE)
        if not piece:
            return
        yield piece
        heard = time.monotonic()  # the caller may have kept the piece for long


def _bounded(pieces: Iterator[bytes], commands: Commands, largest: int, most_data: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > largest:
            raise VolumeUnsendable(f"its stream has more than {largest} bytes")
        commands.follow(piece)
        if commands.data > most_data:
            raise VolumeUnsendable("its files share so much that they would not fit apart")
        yield piece


def _not_sent(volume: Path, running: "_Running", failed: str, seconds: int) -> Exception:
    """Whether the volume or the host is to blame."""
    status = running.process.returncode
    if status == -signal.SIGKILL and running.cpu_seconds > seconds * NEARLY:
        return VolumeUnsendable(f"its tree takes more than {seconds} seconds")
    if status != FAILED or FAILURES_OF_THE_HOST.search(failed):
        log.error("volume_not_sent", volume=volume.name, reason=failed)
        return Unavailable("A volume could not be read just now.")
    return VolumeUnsendable(failed)


def received(directory: Path, content: Iterator[bytes]) -> None:
    """Makes the stream's subvolume in `directory`. The process cannot reach out of that directory. When this raises, a
    part of the volume may be there, but nothing writes to it any more.

    Raises what `content` raises; Unavailable; and ValueError only where the content is no whole stream, because the
    caller then tries an older one.
    """
    with _running([*RECEIVE, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        stream = _handle(running.process.stdin)
        os.set_blocking(stream, False)
        for piece in content:
            if not _written(stream, piece):
                break  # the process gives its reason below
        if running.process.stdin:
            running.process.stdin.close()
        failed = running.failure()
    if failed is None:
        return
    if NO_STREAM.search(failed):
        raise ValueError(f"no whole stream of a volume: {failed}")
    log.error("volume_not_received", volume=directory.name, reason=failed)
    raise Unavailable("A volume could not be written just now.")


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    output: BinaryIO  # its messages
    cpu_seconds: float = 0.0  # that it took, once it has ended

    def bound(self, seconds: int) -> None:
        """The kernel kills the process after so many seconds of CPU time. A milder signal would come too late: a system
        call that sends a volume goes on until something kills it."""
        resource.prlimit(self.process.pid, resource.RLIMIT_CPU, (seconds, seconds))

    def failure(self) -> str | None:
        """Waits for the end of the process. Returns its messages where it failed, else None. Raises Unavailable when it
        takes too long."""
        if not has_ended(self.process, SILENT_SECONDS):
            raise Unavailable("A transfer of a volume does not end.")
        self.cpu_seconds = _cpu_seconds(self.process.pid)
        status = self.process.wait()
        if not status:
            return None
        self.output.seek(0)
        words = self.output.read(KEPT_OUTPUT).decode(errors="replace")
        return " ".join(words.split()) or f"exit {status}"


@contextmanager
def _running(argv: list[str], stdin: int, stdout: int) -> Iterator[_Running]:
    """The process ends with the block, by force if need be. Raises Unavailable."""
    with os.fdopen(os.memfd_create("messages"), "w+b") as output:
        try:
            process = subprocess.Popen(
                argv, bufsize=0, stdin=stdin, stdout=stdout, stderr=output, env=ENVIRONMENT, cwd="/"
            )
        except OSError as failed:
            raise Unavailable(f"A transfer of a volume could not be started: {failed.strerror}.") from failed
        pipes = [pipe for pipe in (process.stdin, process.stdout) if pipe is not None]
        try:
            for pipe in pipes:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
            yield _Running(process, output)
        finally:
            process.kill()
            for pipe in pipes:
                pipe.close()
            _wait(process)


def _cpu_seconds(pid: int) -> float:
    """Of a process that nobody has waited for yet."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]  # proc_pid_stat(5): 14 and 15
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise Unavailable("A transfer of a volume does not end.") from late


def _handle(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()


def _ready(handle: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, event)
    return bool(poll.poll(seconds * 1000))


def _written(stream: int, piece: bytes) -> bool:
    """Returns False where the process reads no more. Raises Unavailable."""
    left = memoryview(piece)
    while left:
        if not _ready(stream, select.POLLOUT, SILENT_SECONDS):
            raise Unavailable("A volume could not be written: nothing of it was taken for a minute.")
        try:
            left = left[os.write(stream, left) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            return False
    return True
