"""The table of attacks: one row for each resource. The programs are in tests/attack/inside."""

from dataclasses import dataclass
from enum import Enum


class Needs(Enum):
    """What a row needs besides the API."""

    NOTHING = ""
    OUTSIDE = "root on the server's host, to make a network namespace that acts as a server on the internet"
    EDGE = "root on the server's host, and an edge that listens beyond the loopback (BUNTIME_HOST)"


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    program: str  # in tests/attack/inside; empty if the attacker is not a session
    unit: str  # of the held amount
    least: int  # the row fails if it holds less: then there was no attack
    arguments: tuple[str, ...] = ()
    needs: Needs = Needs.NOTHING
    may_be_refused: bool = False  # the row passes if the sandbox refuses the system call altogether

    def __str__(self) -> str:
        return self.name


def _row(name: str, program: str, unit: str, least: int, *arguments: str, needs: Needs = Needs.NOTHING) -> Row:
    return Row(name, program, unit, least, arguments, needs)


# `least` is below the amount that a working limit allows: it shows that the attack happened, not that it succeeded.
ROWS = (
    _row("cpu", "cpu.py", "busy processes", 4),
    _row("memory", "memory.py", "MB", 512),
    _row("tmpfs", "tmpfs.py", "MB", 60),
    _row("disk", "disk.py", "MB", 100),
    _row("inodes", "inodes.py", "files", 1000),
    _row("disk I/O", "storm.py", "fsyncs and direct writes", 20),
    _row("processes", "bomb.py", "processes", 100),
    _row("ptys", "ptys.py", "ptys", 8),
    _row("inotify watches", "watches.py", "watches", 1000),
    _row("inotify instances", "instances.py", "instances", 16),
    _row("pending signals", "signals.py", "signals", 64),
    _row("timers", "timers.py", "timers", 64),
    _row("message queues", "queues.py", "queues", 1),
    Row("AIO contexts", "aio.py", "events", 1, may_be_refused=True),
    _row("open files", "handles.py", "files", 1000),
    _row("TCP, accepted", "tcp.py", "MB in buffers", 1, "accepted"),
    _row("TCP, not accepted", "tcp.py", "MB in buffers", 1, "waiting"),
    _row("UDP sockets", "udp.py", "MB in buffers", 1),
    _row("Unix sockets", "unix.py", "MB in buffers", 1),
    _row("pipes", "pipes.py", "MB in buffers", 1),
    _row("connection tracking, own", "tracked.py", "datagrams from fresh ports", 1000),
    _row("connection tracking, host", "outside.py", "connections", 100, "connections", needs=Needs.OUTSIDE),
    _row("bandwidth", "outside.py", "MB sent", 50, "stream", needs=Needs.OUTSIDE),
    _row("packets", "outside.py", "datagrams", 1000, "datagrams", needs=Needs.OUTSIDE),
    _row("DNS", "names.py", "questions", 1000),
    _row("output and logs", "output.py", "MB written", 50),
    _row("System V shared memory", "shared_memory.py", "MB", 100),
    _row("System V semaphores", "semaphores.py", "sets", 100),
    _row("negative dentries", "dentries.py", "missing names", 10_000),
    _row("epoll", "epoll.py", "watches", 1000),
    _row("futexes", "futexes.py", "waits and wakes", 1000),
    _row("file locks", "locks.py", "locks", 1000),
    _row("locks on shared files", "shared_locks.py", "locks of each file", 1000),
    _row("half-open connections", "", "connections", 200, needs=Needs.EDGE),
)
